"""Runs whose videos go bad: named once, below the limit survived, above it stopped with everything saved."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from rich.console import Console

from iwin.data.bad_videos import BadVideo, BadVideos
from iwin.engine.bad_files import BadFile, BadFiles, read_bad_files
from iwin.engine.log import RunLog, read_log
from iwin.engine.resume import load_state
from iwin.engine.train import Training, train
from iwin.errors import DataError
from tests.runs import tiny_config, tiny_training, write_class_folders


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three classes of eight videos: seven of the 24 may be bad."""
    return write_class_folders(tmp_path / "clips", clips=8)


def training(clips: Path, work_dir: Path, **changes: Any) -> Training:
    AcceleratorState._reset_state(reset_partial_state=True)
    settings = {"data.val": None, "data.bad_videos": {"max_share": 0.3}, **changes}
    return tiny_training(tiny_config(clips, **settings), work_dir)


def spoil(clips: Path, *names: str) -> None:
    for name in names:
        path = clips / name
        path.write_bytes(path.read_bytes()[:100])


def spoil_after(run: Training, steps: int, clips: Path, *names: str) -> None:
    """Spoil videos once a run has taken some steps."""
    asked = iter(range(1000))

    def stop_requested() -> bool:
        if next(asked) + 1 == steps:
            spoil(clips, *names)
        return False

    run.stop_requested = stop_requested


def warnings(work_dir: Path) -> list[str]:
    messages = [record["message"] for record in read_log(work_dir) if record["mode"] == "warning"]
    return [message for message in messages if message.startswith("bad video")]  # advice depends on the machine


# ------------------------------------------------------------------------------------------- the file


def test_each_file_is_named_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", Console(file=io.StringIO()))
    known = BadFile("train", "old.mp4", "old.mp4: was bad before")
    files = BadFiles(tmp_path / "bad_files.jsonl", log, known=[known])
    bad, others = BadVideos(100), BadVideos(100)
    for videos in (bad, others):
        videos.learn(files.known_among(["a.mp4", "old.mp4"]))
        videos.add(BadVideo("a.mp4", "a.mp4: é is no video"))
        videos.add(BadVideo("old.mp4", "old.mp4: again"))
    files.tell("train", bad)
    files.tell("val", others)
    files.tell("train", bad)
    assert read_bad_files(tmp_path / "bad_files.jsonl") == [known, BadFile("train", "a.mp4", "a.mp4: é is no video")]
    assert warnings(tmp_path) == ["bad video: a.mp4: é is no video"]


def test_a_new_run_begins_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "bad_files.jsonl"
    path.write_text('{"split": "train", "path": "a", "reason": "b"}\n')
    BadFiles(path, RunLog(None, Console(file=io.StringIO()))).tell("train", BadVideos(1))
    assert read_bad_files(path) == []


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad_files.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match="take it away"):
        read_bad_files(tmp_path / "bad_files.jsonl")


# ------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize("workers", [0, 2])
def test_videos_that_go_bad_midway_are_survived(clips: Path, tmp_path: Path, workers: int) -> None:
    names = ["class 0/1.mp4", "class 1/3.mp4", "class 2/0.mp4", "class 2/7.mp4"]
    run = training(clips, tmp_path / "run", **{"epochs": 3, "data.train.num_workers": workers})
    spoil_after(run, 3, clips, *names)
    state = train(run)
    assert state.epoch == 3
    found = read_bad_files(tmp_path / "run" / "bad_files.jsonl")
    assert sorted(file.path for file in found) == [str(clips / name) for name in names]
    assert {file.split for file in found} == {"train"}
    assert len(warnings(tmp_path / "run")) == 4
    run.loader.close()


def test_too_many_stop_the_run_with_everything_saved(clips: Path, tmp_path: Path) -> None:
    run = training(clips, tmp_path / "run", epochs=3)
    spoil_after(run, 3, clips, *(f"class {label}/{n}.mp4" for label in range(3) for n in range(6)))
    with pytest.raises(DataError, match=r"stopped in epoch 1 after batch \d, with everything saved .*--resume-from"):
        train(run)
    named = {json.loads(line)["path"] for line in (tmp_path / "run" / "bad_files.jsonl").read_text().splitlines()}
    assert len(named) > run.loader.bad.limit == 7
    again = training(clips, tmp_path / "run", epochs=3, resume_from=str(tmp_path / "run"))
    assert {video.path for video in again.loader.bad} == named
    progress = load_state(tmp_path / "run", again)
    assert 3 <= progress.batch <= 6
    with pytest.raises(DataError, match="with everything saved"):
        train(again, progress)


def test_one_is_too_many_where_that_is_asked_for(clips: Path, tmp_path: Path) -> None:
    spoil(clips, "class 0/1.mp4")
    run = training(clips, tmp_path / "run", **{"data.bad_videos": {"policy": "error"}})
    with pytest.raises(DataError, match=r"1 of 24 videos .*, and none is allowed.*\n.*1\.mp4: not a video"):
        train(run)


def test_the_same_bad_videos_give_the_same_run(clips: Path, tmp_path: Path) -> None:
    """Known from the beginning or found on the way: the replacements are the same."""
    spoil(clips, "class 0/1.mp4", "class 1/4.mp4")
    first = training(clips, tmp_path / "first")
    train(first)
    known = "".join((tmp_path / "first" / "bad_files.jsonl").read_text())
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "bad_files.jsonl").write_text(known)
    second = training(clips, tmp_path / "second", resume_from=str(tmp_path / "second"))
    assert len(second.loader.bad) == 2
    train(second)
    for name, value in first.recognizer.state_dict().items():
        assert value.equal(second.recognizer.state_dict()[name]), name
    assert (tmp_path / "second" / "bad_files.jsonl").read_text() == known


def test_a_split_to_validate_may_have_too_many_too(clips: Path, tmp_path: Path) -> None:
    spoil(clips, *(f"class 1/{n}.mp4" for n in range(8)))
    good = write_class_folders(tmp_path / "good", clips=2)
    split = {"root": str(clips), "num_workers": 0, "sampling": {"clip_len": 4, "test_mode": True}}
    run = training(good, tmp_path / "run", **{"data.val": split, "data.bad_videos": {}})
    with pytest.raises(DataError, match=r"clips: 2 of 24 videos could not be read, more than the 1 allowed"):
        train(run)
    assert (tmp_path / "run" / "epoch_1.safetensors").exists()
    assert {file.split for file in read_bad_files(tmp_path / "run" / "bad_files.jsonl")} == {"val"}
