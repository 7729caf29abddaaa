"""Something made of every video: what is done stays, what fails is named, nothing is half there."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from iwin.data.annotations import Annotations, FrameFolder, Sample
from iwin.errors import DataError, IwinError, VideoError
from iwin.prepare.convert import Facts, Outcome, Task, convert, plan_tasks, write_lists
from iwin.prepare.splits import Split
from tests.prepare.jobs import behave


def split_of(root: Path, *names: str, classes: tuple[str, ...] | None = None) -> Split:
    samples = []
    for label, name in enumerate(names):
        path = Path(root / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.stem)
        samples.append(Sample(str(path), (label,)))
    return Split("train", Annotations(tuple(samples), classes, root), root)


def make(task: Task, *, prefix: str = "") -> Facts:
    """Copy a text and its number of letters; behave as a file's content says."""
    text = Path(task.sample.path).read_text()
    if text == "bad":
        raise VideoError(f"{task.sample.path}: is bad")
    if text == "full":
        raise IwinError(f"{task.target}: cannot be written (No space left on device)")
    text = prefix + behave(text)
    task.target.parent.mkdir(parents=True, exist_ok=True)
    task.target.write_text(text)
    return {"num_frames": len(text), "num_bytes": task.target.stat().st_size}


def is_whole(target: Path, facts: Facts) -> bool:
    return target.is_file() and target.stat().st_size == facts["num_bytes"]


def run(tasks: list[Task], out: Path, *, prefix: str = "", **options: Any) -> list[Outcome]:
    settings = {"prefix": prefix}
    journal = out / "made.jsonl"
    options = {"processes": 2, "time_limit": 60.0, **options}
    making = partial(make, prefix=prefix)
    return list(convert(making, tasks, settings=settings, is_whole=is_whole, journal=journal, **options))


def made_now(outcomes: list[Outcome]) -> set[str]:
    return {outcome.task.name for outcome in outcomes if outcome.facts is not None and outcome.is_new}


def test_folders_stay_and_suffixes_change(tmp_path: Path) -> None:
    split = split_of(tmp_path / "in", "a/x.avi", "b/x.webm", "c.d.mp4")
    names = [task.name for task in plan_tasks([split, split], tmp_path / "out", suffix=".mp4")]
    assert names == ["a/x.mp4", "b/x.mp4", "c.d.mp4"]


def test_names_that_would_clash_keep_their_suffixes(tmp_path: Path) -> None:
    split = split_of(tmp_path / "in", "x.avi", "x.mkv", "y.avi")
    names = [task.name for task in plan_tasks([split], tmp_path / "out", suffix=".mp4")]
    assert names == ["x.avi.mp4", "x.mkv.mp4", "y.mp4"]


def test_files_outside_the_root_stay_within_the_output_folder(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").touch()
    sample = Sample(f"{tmp_path}/in/../x.mp4", (0,))
    split = Split("train", Annotations((sample,), None, tmp_path), tmp_path / "in")
    (task,) = plan_tasks([split], tmp_path / "out", suffix=".mp4")
    assert task.target == tmp_path / "out" / "x.mp4"


def test_sources_are_not_overwritten(tmp_path: Path) -> None:
    split = split_of(tmp_path / "in", "x.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(DataError, match="is a source and would be overwritten"):
        plan_tasks([split], tmp_path / "link", suffix=".mp4")


def test_folders_of_other_videos_are_not_replaced(tmp_path: Path) -> None:
    split = split_of(tmp_path / "in", "a.mp4", "a/b.mp4")
    with pytest.raises(DataError, match="would stand where the folder of other videos is"):
        plan_tasks([split], tmp_path / "out", suffix="")
    assert len(plan_tasks([split], tmp_path / "out", suffix=".mp4")) == 2


def test_only_video_files_are_taken(tmp_path: Path) -> None:
    sample = Sample("frames", (0,), FrameFolder(3))
    split = Split("train", Annotations((sample,), None, tmp_path), tmp_path)
    with pytest.raises(DataError, match="is a folder of frames"):
        plan_tasks([split], tmp_path / "out", suffix=".mp4")


def test_bad_videos_are_named_and_the_others_made(tmp_path: Path) -> None:
    names = ("a.mp4", "bad.mp4", "crash.mp4", "raise.mp4", "stop.mp4", "b.mp4")
    tasks = plan_tasks([split_of(tmp_path / "in", *names)], tmp_path / "out", suffix=".mp4")
    (tmp_path / "in" / "b.mp4").unlink()
    outcomes = {outcome.task.name: outcome for outcome in run(tasks, tmp_path / "out", time_limit=0.5)}
    assert set(outcomes) == set(names)
    assert made_now(list(outcomes.values())) == {"a.mp4"}
    reasons = {name: str(outcome.reason).partition(": ")[2] for name, outcome in outcomes.items()}
    assert reasons["bad.mp4"] == "is bad"
    assert "SIGSEGV" in reasons["crash.mp4"]
    assert "RuntimeError: no such luck" in reasons["raise.mp4"]
    assert "was killed" in reasons["stop.mp4"]
    assert "is not there" in reasons["b.mp4"]


def test_trouble_that_all_would_meet_ends_the_work(tmp_path: Path) -> None:
    tasks = plan_tasks([split_of(tmp_path / "in", "full.mp4", "a.mp4")], tmp_path / "out", suffix=".mp4")
    with pytest.raises(IwinError, match="No space left"):
        run(tasks, tmp_path / "out")


def test_a_second_run_does_what_is_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    split = split_of(tmp_path / "in", "a.mp4", "b.mp4", "c.mp4", "bad.mp4")
    tasks = plan_tasks([split], out, suffix=".mp4")
    assert made_now(run(tasks, out)) == {"a.mp4", "b.mp4", "c.mp4"}
    (out / "a.mp4").unlink()
    (out / "b.mp4").write_text("half")
    (tmp_path / "in" / "bad.mp4").write_text("mended")
    assert made_now(run(tasks, out)) == {"a.mp4", "b.mp4", "bad.mp4"}
    assert made_now(run(tasks, out)) == set()
    (tmp_path / "in" / "c.mp4").write_text("changed")
    assert made_now(run(tasks, out)) == {"c.mp4"}
    assert made_now(run(tasks, out, prefix="other ")) == {"a.mp4", "b.mp4", "c.mp4", "bad.mp4"}
    assert (out / "c.mp4").read_text() == "other CHANGED"


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tasks = plan_tasks([split_of(tmp_path / "in", "x/a.mp4")], out, suffix=".mp4")
    (out / "x" / ".a.mp4.123.tmp").mkdir(parents=True)
    (out / "x" / ".a.mp4.124.tmp").touch()
    (out / "x" / ".b.mp4.124.tmp").touch()
    run(tasks, out)
    assert sorted(path.name for path in (out / "x").iterdir()) == [".b.mp4.124.tmp", "a.mp4"]


def test_two_runs_in_one_folder_are_kept_apart(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tasks = plan_tasks([split_of(tmp_path / "in", "a.mp4", "b.mp4")], out, suffix=".mp4")
    first = convert(make, tasks, settings={}, is_whole=is_whole, journal=out / "j", processes=1, time_limit=60)
    next(first)
    with pytest.raises(DataError, match="another process is at work"):
        next(convert(make, tasks, settings={}, is_whole=is_whole, journal=out / "j", processes=1, time_limit=60))
    assert len(list(first)) == 1


def test_lists_hold_what_was_made(tmp_path: Path) -> None:
    out = tmp_path / "out"
    split = split_of(tmp_path / "in", "#a.avi", "bad.mp4", "c d.mp4", classes=("x", "y", "z"))
    outcomes = run(plan_tasks([split], out, suffix=".mp4"), out)
    assert write_lists([split], outcomes, out) == [(out / "train.txt", 2)]
    assert (out / "train.txt").read_text() == "./#a.mp4 0\nc d.mp4 2\n"
    assert (out / "classes.txt").read_text() == "x\ny\nz\n"
    write_lists([split], outcomes, out, frame_folders=True)
    assert (out / "train.txt").read_text() == "./#a.mp4 2 0\nc d.mp4 3 2\n"
