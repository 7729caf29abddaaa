"""The scripts of benchmarks/: what cannot be measured or written is told in one sentence, before the work."""

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from iwin.bench.scripts import count, width_height

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / name), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_numbers_of_options() -> None:
    assert count("3") == 3
    assert width_height("340x256") == (340, 256)
    for text in ("0", "-1", "x", "1.5"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no number from 1 up"):
            count(text)
    for text in ("160", "1x2x3"):
        with pytest.raises(argparse.ArgumentTypeError, match="give one like 340x256"):
            width_height(text)
    with pytest.raises(argparse.ArgumentTypeError, match="no number"):
        width_height("160x")


@pytest.mark.parametrize(("name", "options"), [("multi_view_test.py", []), ("decode_memory.py", ["--data", "x"])])
def test_a_record_that_cannot_be_written_is_told_before_the_work(
    name: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", [name, *options, "--out", str(tmp_path / "file" / "x.json")])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    assert str(left.value).startswith(f"{name}: {tmp_path}/file/x.json: cannot be written, since")


@pytest.mark.slow
def test_a_size_without_height_and_a_folder_that_is_not_there() -> None:
    done = run("multi_view_test.py", "--size", "160")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("'160' is no WIDTHxHEIGHT; give one like 340x256")
    done = run("multi_view_test.py", "--videos", "no_such_folder")
    assert done.returncode == 1
    assert done.stderr.startswith("multi_view_test.py: no_such_folder: there is no such folder")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_record_of_the_views_says_where_it_was_measured(tmp_path: Path) -> None:
    out = tmp_path / "new" / "x.json"
    done = run("multi_view_test.py", "--cpu", "--size", "64x48", "--count", "2", "--rounds", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert record["machine"]["cpu"]
    assert set(record["ratios"]) == {"loop", "workers"}
