import json
from pathlib import Path
from typing import Any

import pytest

from iwin.cli.tools.analyze_logs import curves_of, run_names
from iwin.engine.log import read_log
from iwin.errors import DataError
from tests.commands import iwin


def write_log(path: Path, *records: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def train(epoch: int, iteration: int, **values: float) -> dict[str, Any]:
    return {"mode": "train", "epoch": epoch, "iter": iteration, **values}


RUN = [
    train(1, 2, loss=3.0, top1_acc=0.1, time=9.0, data_time=8.0),
    train(1, 4, loss=2.0, top1_acc=0.2, time=1.0, data_time=0.25),
    {"mode": "warning", "message": "skipped"},
    {"mode": "val", "epoch": 1, "top1_acc": 0.3, "videos": 5},
    train(2, 2, loss=1.5, top1_acc=0.4, time=9.0, data_time=8.0),
    train(2, 4, loss=1.0, top1_acc=0.5, time=3.0, data_time=0.75),
    {"mode": "val", "epoch": 2, "top1_acc": 0.6, "videos": 5},
]


def test_training_and_validation_make_a_curve_each() -> None:
    training, validation = curves_of("top1_acc", "a", "log", RUN)
    assert (training.mode, validation.mode) == ("train", "val")
    assert (training.epochs, training.values) == ([0.5, 1.0, 1.5, 2.0], [0.1, 0.2, 0.4, 0.5])
    assert (validation.epochs, validation.values) == ([1, 2], [0.3, 0.6])
    (loss,) = curves_of("loss", "a", "log", RUN)
    assert loss.values == [3.0, 2.0, 1.5, 1.0]


def test_of_lines_that_a_resumed_run_wrote_again_the_later_count() -> None:
    (curve,) = curves_of("loss", "a", "log", [*RUN, train(2, 2, loss=0.5)])
    assert curve.values == [3.0, 2.0, 0.5, 1.0]


def test_a_key_that_a_run_does_not_have_is_told_of() -> None:
    with pytest.raises(DataError, match=r"log: has no 'top1_ac' \(did you mean 'top1_acc'\?\); it has data_time, "):
        curves_of("top1_ac", "a", "log", RUN)


def test_runs_are_named_by_their_folder_or_the_legend() -> None:
    assert run_names(["runs/a/log.jsonl", "runs/b"], None, keys=["loss"]) == ["a", "b"]
    assert run_names(["a/x.log.json", "b/x.log.json"], None, keys=["loss"]) == ["a/x.log.json", "b/x.log.json"]
    assert run_names(["a", "b"], ["one", "two"], keys=["loss", "lr"]) == ["one", "two"]
    assert run_names(["a", "b"], ["one", "1", "two", "2"], keys=["loss", "lr"]) == ["one", "two"]
    with pytest.raises(DataError, match="--legend names 3 runs"):
        run_names(["a", "b"], ["1", "2", "3"], keys=["loss"])


def test_upstreams_logs_are_read(tmp_path: Path) -> None:
    upstream = {"env_info": "Python: 3.7", "seed": None}
    path = write_log(tmp_path / "20250101_000000.log.json", upstream, *RUN)
    assert read_log(path) == RUN


def test_a_log_that_is_being_written_is_read_to_its_last_whole_line(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.jsonl", *RUN)
    with path.open("a") as file:
        file.write('{"mode": "tr')
    assert read_log(tmp_path) == RUN


def test_times_are_told(tmp_path: Path) -> None:
    write_log(tmp_path / "run" / "log.jsonl", *RUN)
    result = iwin("tool", "analyze_logs", "cal_train_time", "run", cwd=tmp_path)
    assert result.status == 0, result.err
    assert "run: 2.0000 s a batch, 25% of it waiting for data" in result.out
    assert "slowest epoch 2: 3.0000 s; fastest epoch 1: 1.0000 s" in result.out
    whole = iwin("tool", "analyze_logs", "cal_train_time", "run", "--include-outliers", cwd=tmp_path)
    assert "run: 5.5000 s a batch" in whole.out


def test_without_matplotlib_drawing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    write_log(tmp_path / "run" / "log.jsonl", *RUN)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = iwin("tool", "analyze_logs", "plot_curve", "run", cwd=tmp_path)
    assert result.status == 1
    assert result.err == "iwin: drawing needs Matplotlib: pip install matplotlib, or iwin[viz]\n"
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("name", ["curves.png", "curves.svg"])
def test_curves_are_drawn(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    write_log(tmp_path / "a" / "log.jsonl", *RUN)
    write_log(tmp_path / "b" / "log.jsonl", *[{**record, "loss": 1.0} for record in RUN])
    options = ["--keys", "top1_acc", "loss", "--legend", "first", "second", "--title", "two runs", "--out", name]
    result = iwin("tool", "analyze_logs", "plot_curve", "a", "b", *options, cwd=tmp_path)
    assert result.status == 0, result.err
    assert result.out == f"wrote {name}\n"
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG" if name.endswith(".png") else b"<?xml")
