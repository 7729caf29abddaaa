"""The command as its users run it: real processes on real files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iwin.cli import main
from tests.runs import write_class_folders

SMALL = ["data.workers_per_gpu=0", "log_config.interval=1", "data.videos_per_gpu=3"]


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "iwin", *map(str, args)]


def iwin(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command(*args), cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips/{train,val} of three classes, and a trained run of one epoch in run/."""
    root = tmp_path_factory.mktemp("cli")
    write_class_folders(root / "clips" / "train", clips=3)
    write_class_folders(root / "clips" / "val", clips=2)
    (root / "clips" / "val" / "class 2" / "broken.mp4").write_bytes(b"not a video")
    options = [*SMALL, "total_epochs=1"]
    result = iwin(
        "train", "iwin_nano_demo", "--data", "clips", "--work-dir", "run", "--cfg-options", *options, cwd=root
    )
    assert result.returncode == 0, result.stderr
    (root / "train.txt").write_text(result.stderr)
    return root


# ------------------------------------------------------------------------------------------- the way through


def test_training_says_what_it_does_and_leaves_its_files(folder: Path) -> None:
    said = (folder / "train.txt").read_text()
    assert "3 classes; 9 videos to train on, 7 to validate" in said
    assert "epoch 1/1  3/3" in said
    assert "skipped" in said
    assert "broken.mp4" in said
    assert {"best.safetensors", "last.safetensors", "log.jsonl", "config.py", "state"} <= {
        path.name for path in (folder / "run").iterdir()
    }
    modes = [json.loads(line)["mode"] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert modes.count("train") == 3
    assert modes.count("val") == 1


def test_testing_prints_figures_and_writes_scores(folder: Path) -> None:
    options = ["--data", "clips/val", "--out", "scores.json", "--cfg-options", *SMALL]
    metrics = ["--eval", "top_k_accuracy", "mean_class_accuracy"]
    result = iwin("test", "iwin_nano_demo", "run/best.safetensors", *metrics, *options, cwd=folder)
    assert result.returncode == 0, result.stderr
    figures = dict(line.split(": ") for line in result.stdout.splitlines())
    assert figures.keys() == {"top1_acc", "top5_acc", "mean_class_accuracy", "videos", "listed"}
    assert (figures["videos"], figures["listed"]) == ("6", "7")
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["classes"] == ["class 0", "class 1", "class 2"]
    bad = [video for video in scores["videos"] if video["scores"] is None]
    assert [Path(video["path"]).name for video in bad] == ["broken.mp4"]
    hits = [
        video["label"] == max(range(3), key=video["scores"].__getitem__)
        for video in scores["videos"]
        if video["scores"]
    ]
    assert float(figures["top1_acc"]) == pytest.approx(sum(hits) / len(hits), abs=1e-4)


def test_prediction_needs_nothing_but_the_checkpoint(folder: Path) -> None:
    videos = ["clips/val/class 0/0.mp4", "clips/val/class 2/broken.mp4", "clips/val/class 1/1.mp4"]
    result = iwin("predict", *videos, "--checkpoint", "run/best.safetensors", "--json", cwd=folder)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "broken.mp4" in result.stderr
    predictions = [json.loads(line) for line in result.stdout.splitlines()]
    assert [prediction["path"] for prediction in predictions] == [videos[0], videos[2]]
    for prediction in predictions:
        assert set(prediction["classes"]) == {"class 0", "class 1", "class 2"}
        assert sum(prediction["scores"]) == pytest.approx(1, abs=1e-4)
        assert prediction["scores"] == sorted(prediction["scores"], reverse=True)


def test_prediction_prints_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = str(folder / "clips/val/class 0/0.mp4")
    assert main(["predict", video, "--checkpoint", str(folder / "run/best.safetensors"), "--topk", "2"]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0] == f"{video}  (mean of 6 views)"
    assert sum(f"class {label}" in line for line in lines[1:] for label in range(3)) == 2


@pytest.mark.slow
def test_a_terminated_run_goes_on_to_its_end(folder: Path) -> None:
    options = ["--data", "clips", "--work-dir", "stopped", "--cfg-options", *SMALL, "total_epochs=3"]
    process = subprocess.Popen(
        command("train", "iwin_nano_demo", *options), cwd=folder, stderr=subprocess.PIPE, text=True
    )
    log = folder / "stopped" / "log.jsonl"
    while not (log.exists() and '"train"' in log.read_text()):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume-from stopped" in said
    resumed = iwin("train", "iwin_nano_demo", "--resume-from", "stopped", *options, cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from stopped" in resumed.stderr
    assert (folder / "stopped" / "epoch_3.safetensors").exists()


# ------------------------------------------------------------------------------------------- looking


def test_flops_prints_both_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flops", "iwin_tiny"]) == 0
    printed = capsys.readouterr().out
    assert all(figure in printed for figure in ("29.8 M", "73.6 G", "109.4 G"))


def test_config_show_prints_a_config_that_can_be_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "iwin_nano_demo", "--cfg-options", "total_epochs=7"]) == 0
    first = capsys.readouterr().out
    (tmp_path / "again.py").write_text(first)
    assert main(["config", "show", str(tmp_path / "again.py")]) == 0
    assert capsys.readouterr().out == first
    assert "total_epochs = 7" in first


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["flops", "iwin_tinny"], "did you mean 'iwin_tiny'"),
        (["flops", "iwin_nano", "--size", "0"], "--size"),
        (["train", "nowhere.py"], "nowhere.py"),
        (["train", "iwin_nano_demo", "--cfg-options", "optimizer.lrr=1"], "lrr"),
        (["train", "iwin_nano_demo", "--data", "nowhere"], "nowhere"),
        (["test", "iwin_nano_demo", "nowhere.safetensors"], "nowhere.safetensors"),
        (["predict", "a.mp4", "--checkpoint", "nowhere.safetensors"], "nowhere.safetensors"),
        (["predict", "a.mp4", "--checkpoint", "x", "--cfg-options", "a=1"], "--config"),
    ],
)
def test_bad_input_gets_a_sentence_and_a_status(
    args: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert any(line.startswith("iwin: ") for line in printed.err.splitlines())
    assert hint in printed.err
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []
