"""Names of files that are no UTF-8: trained on, escaped where text is written, refused where that cannot be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from iwin.data.layouts import read_annotation_folder
from tests.cli.test_data_check import PROCESSES
from tests.commands import SMALL, iwin
from tests.prepare.files import BAD, write_clip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")

CLASS, CLIP, DAMAGED = (os.fsdecode(name) for name in (b"a\xff", b"caf\xe9.mp4", b"\xe9.mp4"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips/{train,val} of two classes, with a broken video in val."""
    root = tmp_path_factory.mktemp("odd")
    for number, name in enumerate([CLASS, "b"]):
        for place, split in enumerate(("train", "val")):
            write_clip(root / "clips" / split / name / CLIP, first=20 * number + 40 * place)
    BAD["unreadable"](root / "clips" / "val" / "b" / DAMAGED)
    return root


def test_they_are_trained_on_and_tested(folder: Path, tmp_path: Path) -> None:
    options = ["--cfg-options", *SMALL, "total_epochs=1"]
    run = tmp_path / "run"
    result = iwin("train", "iwin_nano_demo", "--data", "clips", "--work-dir", run, *options, cwd=folder)
    assert result.status == 0, result.err
    (bad,) = (run / "bad_files.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(bad)["path"] == f"clips/val/b/{DAMAGED}"
    written = ["--report", tmp_path / "report.json"]
    options = ["--data", "clips/val", "--cfg-options", *SMALL]
    result = iwin("test", "iwin_nano_demo", run / "best.safetensors", *written, *options, cwd=folder)
    assert result.status == 0, result.err
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["classes"] == [CLASS, "b"]
    assert [video["path"] for video in report["videos"] if video["scores"] is None] == [f"clips/val/b/{DAMAGED}"]


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_they_are_checked_and_counted(folder: Path, tmp_path: Path, suffix: str) -> None:
    written = tmp_path / f"check{suffix}"
    result = iwin("data", "check", "clips", "--report", written, *PROCESSES, cwd=folder)
    assert result.out.endswith("training should not start: 1 of 5 videos (20.0%) are unfit, more than 1.0%\n")
    if suffix == ".json":
        assert {Path(video["path"]).name for video in json.loads(written.read_text())["videos"]} == {CLIP, DAMAGED}
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(written).to_pylist()
        assert {Path(row["path"]).name for row in rows} == {r"caf\udce9.mp4", r"\udce9.mp4"}
    result = iwin("data", "info", "clips", "--json", tmp_path / "info.json", *PROCESSES, cwd=folder)
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "info.json").read_text(encoding="utf-8"))["train"]["per_class"] == {CLASS: 1, "b": 1}


def test_they_are_packed(folder: Path, tmp_path: Path) -> None:
    result = iwin("data", "shard", "clips/train", "--out", tmp_path / "shards", *PROCESSES, cwd=folder)
    assert result.status == 0, result.err
    assert read_annotation_folder(tmp_path / "shards").classes == (CLASS, "b")
    (tmp_path / "shards" / "index.json").unlink()  # each member says it, too
    assert len(read_annotation_folder(tmp_path / "shards").samples) == 2


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["data", "list", "clips", "--out", "o"], "a list cannot hold a path that is no UTF-8"),
        (["data", "list", "clips/val", "--out", "o"], "a list cannot hold a path that is no UTF-8"),
        (["data", "check", "clips", "--clean", "o"], "a list cannot hold a path that is no UTF-8"),
        (["data", "resize", "clips", "--out", "o"], "a list cannot hold a path that is no UTF-8"),
        (["data", "frames", "clips", "--out", "o"], "a list cannot hold a path that is no UTF-8"),
        (["tool", "build_file_list", "clips", "o"], "a list cannot hold a path that is no UTF-8"),
        (["train", "iwin_nano_demo", "--data", CLASS], "a config cannot hold a name that is no UTF-8"),
    ],
)
def test_what_cannot_hold_them_is_told_before_the_work(folder: Path, args: list[str], hint: str) -> None:
    before = sorted(folder.rglob("*"))
    result = iwin(*args, cwd=folder)
    assert result.status == 1
    assert result.err.splitlines()[-1].startswith("iwin: ")
    assert hint in result.err
    assert sorted(folder.rglob("*")) == before


def test_they_are_printed_escaped(tmp_path: Path) -> None:
    write_clip(tmp_path / CLASS / "rise" / "a.mp4")
    command = [sys.executable, "-m", "iwin", "data", "list", str(tmp_path / CLASS)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    result = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (result.returncode, b"a\\udcff/train.txt: 1 lines" in result.stdout) == (0, True), result.stderr
