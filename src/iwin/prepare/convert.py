"""Make something of every video of a data set, in parallel, and go on where an interrupted run stopped.

What is made of a video is there whole or not at all; a journal in the output folder tells of which file and by which
settings it was made, so that a later run makes anew only what has changed.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from iwin.data.annotations import FrameFolder, Sample
from iwin.data.workers import Lost
from iwin.errors import DataError, IwinError, VideoError
from iwin.prepare.formats.writing import check_listable
from iwin.prepare.journal import Journal
from iwin.prepare.pool import run_all
from iwin.prepare.probe import VideoFacts
from iwin.prepare.splits import Split, write_split

Facts = dict[str, Any]
"""What is known of a thing that was made; at least "num_frames" and "num_bytes"."""


@dataclass(frozen=True)
class Task:
    """A video and what is to be made of it.

    Attributes:
        sample: the video.
        name: of the file or folder to be made, relative to the output folder, "/" between folders.
        target: the same, as a path.
    """

    sample: Sample
    name: str
    target: Path


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        task: the task.
        facts: what was made, or None.
        reason: why nothing was made, as a sentence.
        is_new: whether it was made now, not by an earlier run.
    """

    task: Task
    facts: Facts | None = None
    reason: str | None = None
    is_new: bool = True


def plan_tasks(splits: Sequence[Split], out: Path, *, suffix: str) -> list[Task]:
    """A task for each file of a data set, once; folders stay as they are below each split's root.

    Args:
        splits: the data set.
        out: the output folder.
        suffix: of the names, in the place of the videos' own. Where two videos would get one name, both keep theirs
            too, as in "clip.avi.mp4".

    Raises:
        DataError: if videos do not lie on this machine as files, something would be written over one of them, or the
            lists of what is made cannot hold a name.
    """
    names: dict[str, str] = {}
    samples: dict[str, Sample] = {}
    for split in splits:
        for sample in split.samples:
            if sample.stored is not None:
                kind = "a folder of frames" if isinstance(sample.stored, FrameFolder) else "a part of a shard"
                raise DataError(f"{sample.path}: is {kind}; this step takes video files")
            names.setdefault(sample.path, _below(split.relative(sample.path)))
            samples.setdefault(sample.path, sample)
    bare = {path: str(PurePosixPath(name).with_suffix(suffix)) for path, name in names.items()}
    taken = Counter(bare.values())
    tasks = []
    for path, name in bare.items():
        unique = name if taken[name] == 1 else f"{names[path]}{suffix}"
        tasks.append(Task(samples[path], unique, out / unique))
    check_listable(task.name for task in tasks)
    for split in splits:
        check_listable([], split.annotations.classes)
    sources = {identity for path in names if (identity := _identity(path)) is not None}
    written = [*map(Path, names), *(task.target for task in tasks)]
    holding = {folder.resolve() for folder in {parent for path in written for parent in path.parents}}
    for task in tasks:
        if _identity(task.target) in sources:
            raise DataError(f"{task.target}: is a source and would be overwritten; name another output folder")
        if task.target.resolve() in holding:
            raise DataError(
                f"{task.target}: would stand where the folder of other videos is; rename that folder or "
                f"{task.sample.path}"
            )
    return tasks


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What a file is known by, whatever path leads to it; None if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - for hundreds of thousands of files
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _below(path: str) -> str:
    """A path without what would lead out of the output folder."""
    return str(PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in ("/", ".."))))


def convert(
    make: Callable[[Task], Facts],
    tasks: Sequence[Task],
    *,
    settings: Mapping[str, Any],
    is_whole: Callable[[Path, Facts], bool],
    journal: Path,
    processes: int,
    time_limit: float,
) -> Iterator[Outcome]:
    """Do all tasks that are not done yet.

    Args:
        make: makes a task's target, atomically; a function that processes can import.
        tasks: what to do.
        settings: what the result depends on beside the file; after a change all is made anew.
        is_whole: whether a target is there as it was made.
        journal: the file that tells what is done.
        processes: how many tasks are done at the same time.
        time_limit: seconds without progress after which a task is given up.

    Yields:
        What came of each task, in the order in which that is known.

    Raises:
        IwinError: if nothing can be written.
    """
    with Journal(journal) as done:
        waiting: list[tuple[Task, dict[str, Any]]] = []
        for task in tasks:
            source = VideoFacts.of_sample(task.sample)
            made_of = {"size": source.size, "mtime_ns": source.mtime_ns, "settings": dict(settings)}
            entry = done.entries.get(task.name, {})
            if source.problem is not None:
                yield Outcome(task, reason=source.reason)
            elif entry.get("made_of") == made_of and is_whole(task.target, entry["facts"]):
                yield Outcome(task, entry["facts"], is_new=False)
            else:
                waiting.append((task, made_of))
        jobs = [task for task, _ in waiting]
        _clear_away(task.target for task in jobs)
        for index, result in run_all(partial(_attempt, make), jobs, processes=processes, time_limit=time_limit):
            task, made_of = waiting[index]
            if isinstance(result, VideoError):
                yield Outcome(task, reason=str(result))
            elif isinstance(result, Lost):
                yield Outcome(task, reason=f"{task.sample.path}: {result.reason}; take it off the list")
            elif isinstance(result, IwinError):
                raise result
            else:
                done.add(task.name, {"made_of": made_of, "facts": result})
                yield Outcome(task, result)


def _attempt(make: Callable[[Task], Facts], task: Task) -> Facts | IwinError:
    """The facts, or the error that was raised: one of the video, or one that all tasks would meet."""
    try:
        return make(task)
    except IwinError as error:
        return error


def _clear_away(targets: Iterable[Path]) -> None:
    """Remove what processes that were killed in the middle of these tasks have left; lists each folder once."""
    names: dict[Path, set[str]] = {}
    for target in targets:
        names.setdefault(target.parent, set()).add(target.name)
    for folder in filter(Path.is_dir, names):
        for left in folder.iterdir():
            temporary = re.fullmatch(r"\.(.+)\.\d+\.tmp", left.name)
            if temporary and temporary[1] in names[folder]:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def write_lists(
    splits: Sequence[Split], outcomes: Iterable[Outcome], out: Path, *, frame_folders: bool = False
) -> list[tuple[Path, int]]:
    """Write `<split>.txt` for what was made, with paths relative to the output folder, and classes.txt.

    Returns:
        Each list and its number of videos; a split of which nothing was made has none.
    """
    made = {outcome.task.sample.path: outcome for outcome in outcomes if outcome.facts is not None}
    lists = []
    for split in splits:
        samples = []
        for sample in split.samples:
            if sample.path in made:
                outcome = made[sample.path]
                assert outcome.facts is not None
                stored = FrameFolder(outcome.facts["num_frames"]) if frame_folders else None
                samples.append(replace(sample, path=outcome.task.name, stored=stored))
        if samples:
            write_split(out / f"{split.name}.txt", samples, classes=split.annotations.classes)
            lists.append((out / f"{split.name}.txt", len(samples)))
    return lists
