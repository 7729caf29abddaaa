"""Runs on videos that lie behind an address, by a real S3 server, and in an archive."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from iwin.cli.common import split_options
from iwin.cli.train import data_options
from tests.commands import SMALL, iwin
from tests.servers import s3_server

HERE = "data.workers_per_gpu=0"
"""Processes that started before the server do not know of it."""


@pytest.fixture(scope="module")
def bucket(trained: Path) -> Iterator[str]:
    """Address of the class folders of `trained`, with lists of them beside."""
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as file_system:
        file_system.put(str(trained / "clips"), "bucket/", recursive=True)
        file_system.pipe_file("bucket/lists/val.txt", b"class 0/0.mp4 0\nclass 1/1.mp4 1\n")
        for name in ("class 0/0.mp4", "class 1/1.mp4"):
            file_system.put_file(str(trained / "clips" / "val" / name), f"bucket/lists/{name}")
        yield "s3://bucket"


@pytest.mark.slow
def test_training_takes_an_address(bucket: str, tmp_path: Path) -> None:
    options = ["--data", f"{bucket}/clips", "--work-dir", "run", "--cfg-options", *SMALL, "total_epochs=1"]
    result = iwin("train", "iwin_nano_demo", *options, cwd=tmp_path)
    assert result.status == 0, result.err
    assert "9 videos to train on, 7 to validate" in result.err
    assert "bad video: s3://bucket/clips/val/class 2/broken.mp4: not a video that can be read" in result.err


@pytest.mark.parametrize(("place", "listed"), [("clips/val", 7), ("clips/val/", 7), ("lists", 2), ("lists/val.txt", 2)])
def test_testing_takes_an_address(bucket: str, trained: Path, tmp_path: Path, place: str, listed: int) -> None:
    weights = trained / "run" / "best.safetensors"
    options = ["--data", f"{bucket}/{place}", "--cfg-options", *SMALL]
    result = iwin("test", "iwin_nano_demo", weights, *options, cwd=tmp_path)
    assert result.status == 0, result.err
    assert f"listed: {listed}\n" in result.out


def test_data_behind_an_address_are_shown(bucket: str, tmp_path: Path) -> None:
    result = iwin("data", "show", f"{bucket}/clips/train", "--num", "2", "--cfg-options", HERE, cwd=tmp_path)
    assert result.status == 0, result.err
    assert result.out == "wrote sheet.png: 2 clips of 32x224x224\n"


@pytest.mark.parametrize("verb", ["train", "test", "show"])
def test_an_address_with_nothing_there_is_named_as_it_was_given(bucket: str, trained: Path, verb: str) -> None:
    place = f"{bucket}/nowhere"
    commands: dict[str, list[object]] = {
        "train": ["train", "iwin_nano_demo", "--data", place, "--work-dir", trained / "none"],
        "test": ["test", "iwin_nano_demo", trained / "run" / "best.safetensors", "--data", place],
        "show": ["data", "show", place],
    }
    result = iwin(*commands[verb], "--cfg-options", HERE, cwd=trained)
    assert result.status == 1
    (line,) = [line for line in result.err.splitlines() if line.startswith("iwin: ")]
    assert line.startswith(f"iwin: {place}")


def test_testing_takes_a_folder_in_an_archive(trained: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "clips"), "zip", trained / "clips")
    options = ["--data", f"zip://val::file://{archive}", "--cfg-options", *SMALL]
    result = iwin("test", "iwin_nano_demo", trained / "run" / "best.safetensors", *options, cwd=tmp_path)
    assert result.status == 0, result.err
    assert "listed: 7\n" in result.out


def test_addresses_stay_what_they_are(bucket: str) -> None:
    assert data_options(f"{bucket}/clips/")[:2] == [
        "data.train.ann_file=None",
        "data.train.data_prefix=s3://bucket/clips/train",
    ]
    assert split_options("test", f"{bucket}/lists") == [
        "data.test.ann_file=s3://bucket/lists/val.txt",
        "data.test.data_prefix=s3://bucket/lists/",
    ]
