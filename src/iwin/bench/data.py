"""Clips a second from file to batch on one core: this package beside decord and OpenCV, in turn, and stage by stage."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iwin.bench.footage import make_footage
from iwin.bench.machine import describe_machine
from iwin.bench.pipelines import (
    PATTERNS,
    READERS,
    Pattern,
    Reader,
    Stopwatch,
    clip_reader,
    decoding_versions,
    finished,
    normalised,
    read_ours,
    read_theirs,
    samples,
)
from iwin.data.batches import ShardBatches
from iwin.data.datasets import Item, VideoDataset, collate
from iwin.data.loader import BatchLoader

Say = Callable[[str], None]


@dataclass(frozen=True)
class Kind:
    """Videos that are alike.

    Attributes:
        name: as in tables.
        paths: the files.
        made_from: name of the kind that `iwin data resize` made them from; None for originals.
    """

    name: str
    paths: tuple[str, ...]
    made_from: str | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the files."""
        return sum(Path(path).stat().st_size for path in self.paths)


@dataclass
class Result:
    """What was measured of one reader on one kind of video in one pattern.

    Attributes:
        kind: the videos.
        pattern: name of the pattern.
        reader: name of the reader.
        rounds: seconds of each round.
        clips: clips of a round.
        pipe_bytes: of a clip's tensor, which travels from the decoder process.
        stages: milliseconds of a clip in each stage, read in this process.
        difference: mean difference of the normalised pixels from ours, in grey levels.
    """

    kind: Kind
    pattern: str
    reader: str
    rounds: list[float] = field(default_factory=list)
    clips: int = 0
    pipe_bytes: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    difference: float = 0.0

    @property
    def speeds(self) -> list[float]:
        """Clips a second in each round."""
        return [self.clips / seconds for seconds in self.rounds]

    @property
    def outside(self) -> float:
        """Share of the time of all stages that is not spent in the stage "decode"."""
        return 1 - self.stages["decode"] / sum(self.stages.values())


# ---------------------------------------------------------------------------------------------- videos


def make_kinds(folder: Path, sizes: Sequence[tuple[int, int]], *, count: int, say: Say) -> list[Kind]:
    """Originals of some sizes (height, width), with a keyframe every 250 frames."""
    kinds = []
    for height, width in sizes:
        name = f"{width}x{height}"
        say(f"making {count} videos of {name}")
        files = [folder / f"{name}_{number}.mp4" for number in range(count)]
        for seed, file in enumerate(files):
            make_footage(file, height=height, width=width, seed=seed)
        kinds.append(Kind(name, tuple(map(str, files))))
    return kinds


def resize_kinds(folder: Path, kind: Kind, *, say: Say) -> list[Kind]:
    """What `iwin data resize` makes of a kind: short keyframe intervals, and keyframes only, in both codecs."""
    from iwin.prepare.transcode import Recipe, transcode

    made: list[Kind] = []
    for words, recipe in (
        ("a keyframe every 16", Recipe(keyframe_interval=16)),
        ("keyframes only", Recipe(keyframe_interval=1)),
        ("keyframes only, H.264", Recipe(keyframe_interval=1, codec="h264")),
    ):
        say(f"resizing {kind.name}: {words}")
        targets = [folder / f"{kind.name}_{len(made)}_{number}.mp4" for number in range(len(kind.paths))]
        for path, target in zip(kind.paths, targets, strict=True):
            transcode(path, target, recipe)
        made.append(Kind(f"{kind.name}, resized, {words}", tuple(map(str, targets)), made_from=kind.name))
    return made


# ------------------------------------------------------------------------------------------ file to batch


class Loader(Protocol):
    """Batches of one subject, from its decoder process."""

    def __iter__(self) -> Iterator[Any]: ...


class HostDataset(Dataset[Tensor]):
    """Clips as another library and OpenCV make them, for PyTorch's loader."""

    def __init__(self, paths: Sequence[str], count: int, *, pattern: Pattern, library: str) -> None:
        self._paths, self._count, self._pattern, self._library = paths, count, pattern, library

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Tensor:
        path = self._paths[number % len(self._paths)]
        return read_theirs(path, number, Stopwatch(), pattern=self._pattern, library=self._library)


def make_loader(reader: Reader, pattern: Pattern, paths: Sequence[str], *, clips: int, batch: int) -> Loader:
    """A loader with one decoder process: our own, or PyTorch's for other libraries."""
    if reader.scaling is not None:
        dataset = VideoDataset(samples(paths, clips), clip_reader(pattern, reader.scaling))
        return BatchLoader(dataset, ShardBatches(clips, batch_size=batch), num_workers=1)
    return DataLoader(
        HostDataset(paths, clips, pattern=pattern, library=reader.name),
        batch_size=batch,
        num_workers=1,
        worker_init_fn=begin_worker,
        multiprocessing_context="forkserver",
        persistent_workers=True,
    )


def begin_worker(_: int) -> None:
    """One thread, as on a machine with a decoder process for each core."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


# ----------------------------------------------------------------------------------------------- rounds


def measure(
    kinds: Iterable[Kind],
    *,
    patterns: Sequence[str],
    readers: Sequence[Reader],
    clips: int,
    batch: int,
    rounds: int,
    say: Say,
) -> list[Result]:
    """Measure readers in turn: each round, all of them read the same clips, one after the other, on one core.

    A round more at the beginning is not counted: processes start in it. Where videos are resized, originals and what
    was made of them stand in the same rounds, read by this package alone.
    """
    results = []
    groups: dict[str, list[Kind]] = {}
    for kind in kinds:
        groups.setdefault(kind.made_from or kind.name, []).append(kind)
    for group in groups.values():
        for pattern in (pattern for pattern in PATTERNS if pattern.name in patterns):
            subjects = [
                (kind, reader)
                for kind in group
                for reader in readers
                if kind.made_from is None or reader.scaling == "exact"
            ]
            results += _measure_together(subjects, pattern, clips=clips, batch=batch, rounds=rounds, say=say)
    return results


def _measure_together(
    subjects: Sequence[tuple[Kind, Reader]], pattern: Pattern, *, clips: int, batch: int, rounds: int, say: Say
) -> list[Result]:
    clips = clips if pattern.name == "train" else math.ceil(clips / 4)
    results = [Result(kind, pattern.name, reader.name, clips=clips) for kind, reader in subjects]
    loaders = [make_loader(reader, pattern, kind.paths, clips=clips, batch=batch) for kind, reader in subjects]
    try:
        for number in range(-1, rounds):
            say(f"{subjects[0][0].name}, {pattern.name}: " + (f"round {number + 1}" if number >= 0 else "warming up"))
            turns = list(zip(results, loaders, strict=True))
            first = number % len(turns)  # the memory that a reader leaves behind is not always met by the same one
            for result, loader in turns[first:] + turns[:first]:
                start = time.perf_counter()
                found: Any = None
                for found in loader:
                    views = found if isinstance(found, Tensor) else found.views
                    result.pipe_bytes = views.nbytes // len(views)
                found = views = None  # giving a gigabyte back takes time too, which is not the next reader's
                if number >= 0:
                    result.rounds.append(time.perf_counter() - start)
    finally:
        for loader in loaders:
            if isinstance(loader, BatchLoader):
                loader.close()
        loaders.clear()  # PyTorch's end their processes when nobody holds them
    say(f"{subjects[0][0].name}, {pattern.name}: stages")
    for (kind, reader), result in zip(subjects, results, strict=True):
        _measure_stages(kind, reader, pattern, result, clips=clips, batch=batch)
    return results


def _measure_stages(kind: Kind, reader: Reader, pattern: Pattern, result: Result, *, clips: int, batch: int) -> None:
    """Read the same clips in this process, with a stopwatch; the first one once more before it, unmeasured."""
    read = (
        partial(read_theirs, pattern=pattern, library=reader.name)
        if reader.scaling is None
        else partial(read_ours, pattern=pattern, scaling=reader.scaling)
    )
    right = finished(kind.paths[0], 0, pattern=pattern, scaling="exact")
    found = read(kind.paths[0], 0, Stopwatch())
    if reader.scaling is not None:
        found = finished(kind.paths[0], 0, pattern=pattern, scaling=reader.scaling)
    result.difference = (normalised(found) - normalised(right)).abs().mean().item()
    watch = Stopwatch()
    passed: list[Tensor] = []  # where the clips of a batch lie until they are collated, in memory that is kept
    for number in range(clips):
        views = read(kind.paths[number % len(kind.paths)], number, watch)
        place = number % batch
        if len(passed) == place:
            passed.append(views.clone())
        with watch("collate"):
            passed[place].copy_(views)
            if place == batch - 1 or number == clips - 1:
                clips_of_batch = passed[: place + 1]
                if reader.scaling is None:
                    torch.stack(clips_of_batch)
                else:
                    collate([Item(clip, (0,), number) for clip in clips_of_batch])
    result.stages = {stage: 1000 * seconds / clips for stage, seconds in watch.seconds.items()}


def keep_to_one_core() -> int:
    """Bind this process, and those that it starts from now on, to one core; its number. Outside Linux, -1."""
    torch.set_num_threads(1)
    if not hasattr(os, "sched_setaffinity"):
        return -1
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


# ----------------------------------------------------------------------------------------------- record


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratio(fast: Result, slow: Result) -> dict[str, float]:
    """How many times as fast one is as another, round by round."""
    return summary([a / b for a, b in zip(fast.speeds, slow.speeds, strict=True)])


def compared_with(result: Result, results: Sequence[Result]) -> dict[str, Result]:
    """What a result of ours is compared with: other libraries on the same videos, ours on the originals."""
    if not result.reader.startswith("iwin"):
        return {}
    same = [other for other in results if other.pattern == result.pattern]
    found = {other.reader: other for other in same if other.kind == result.kind and not other.reader.startswith("iwin")}
    for other in same:
        if other.kind.name == result.kind.made_from and other.reader == result.reader:
            found["original"] = other
    return found


def describe(result: Result, results: Sequence[Result]) -> dict[str, Any]:
    """What is told of one result: see docs/data_speed.md for the fields."""
    others = compared_with(result, results)
    return {
        "videos": result.kind.name,
        "num_bytes": result.kind.num_bytes,
        "bytes_of_original": next(
            (result.kind.num_bytes / other.kind.num_bytes for name, other in others.items() if name == "original"), None
        ),
        "pattern": result.pattern,
        "reader": result.reader,
        "clips": result.clips,
        "rounds_seconds": result.rounds,
        "clips_per_second": summary(result.speeds),
        **{f"times_{name}": ratio(result, other) for name, other in others.items()},
        **{
            f"pipe_bytes_of_{name}": result.pipe_bytes / other.pipe_bytes
            for name, other in others.items()
            if name != "original"
        },
        "pipe_bytes": result.pipe_bytes,
        "stages_ms": result.stages,
        "outside_decode": result.outside,
        "difference": result.difference,
    }


def record(command: Sequence[str], results: Sequence[Result], *, core: int, batch: int) -> dict[str, Any]:
    """All that a later reader needs: where, with what, when, every sample."""
    return {
        "command": " ".join(command),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": describe_machine(),
        "core": core,
        "batch": batch,
        "readers": decoding_versions(),
        "results": [describe(result, results) for result in results],
    }


def installed_readers(names: Sequence[str] | None) -> list[Reader]:
    """The readers of these names, or all; those that are not installed are left out."""
    return [reader for reader in READERS if reader.is_installed and (names is None or reader.name in names)]
