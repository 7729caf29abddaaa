"""The command as its users run it: real files, real output."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from iwin import create_model
from iwin.build import load_trained
from iwin.checkpoint.io import read_weights, save_weights
from iwin.cli import main
from iwin.cli.train import data_options, resume_folder
from iwin.engine.scores import read_scores
from iwin.errors import CheckpointError, ConfigError, ModelError
from iwin.predict import Predictor
from tests.commands import SMALL, iwin
from tests.servers import silent_server

# ------------------------------------------------------------------------------------------- the way through


def test_training_says_what_it_does_and_leaves_its_files(trained: Path) -> None:
    said = (trained / "run.txt").read_text()
    assert "3 classes; 9 videos to train on, 7 to validate" in said
    assert "epoch 1/1  3/3" in said
    assert "bad video: clips/val/class 2/broken.mp4: not a video that can be read" in said
    (bad,) = (trained / "run" / "bad_files.jsonl").read_text().splitlines()
    assert json.loads(bad)["path"] == "clips/val/class 2/broken.mp4"
    assert {"best.safetensors", "last.safetensors", "log.jsonl", "config.py", "state"} <= {
        path.name for path in (trained / "run").iterdir()
    }
    lines = [json.loads(line) for line in (trained / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["mode"] for line in lines].count("train") == 3
    (validation,) = (line for line in lines if line["mode"] == "val")
    kept = json.loads((trained / "run" / "state" / "fingerprints.json").read_text())
    assert kept == load_trained(trained / "run" / "last.safetensors").fingerprints
    assert kept["val"] == validation["fingerprint"]
    assert f"  fingerprint {kept['val']}" in said


def test_testing_prints_figures_and_writes_a_report(trained: Path, tmp_path: Path) -> None:
    options = ["--data", "clips/val", "--report", tmp_path / "report.json", "--cfg-options", *SMALL]
    metrics = ["--eval", "top_k_accuracy", "mean_class_accuracy", "--eval-options", "topk=(1,2)"]
    result = iwin("test", "iwin_nano_demo", "run/best.safetensors", *metrics, *options, cwd=trained)
    assert result.status == 0, result.err
    figures = dict(line.split(": ") for line in result.out.splitlines())
    scores = {"top1_acc", "top2_acc", "mean_class_accuracy"}
    assert figures.keys() == {*scores, *(f"{name}_listed" for name in scores), "videos", "listed", "fingerprint"}
    assert (figures["videos"], figures["listed"]) == ("6", "7")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["classes"] == ["class 0", "class 1", "class 2"]
    bad = [video for video in report["videos"] if video["scores"] is None]
    assert [Path(video["path"]).name for video in bad] == ["broken.mp4"]
    assert report["fingerprint"] == figures["fingerprint"]
    assert f"the checkpoint's data.val had the fingerprint {report['fingerprint']}" in result.err
    (line,) = (tmp_path / "bad_files.jsonl").read_text().splitlines()
    assert json.loads(line) == {"split": "test", "path": bad[0]["path"], "reason": json.loads(line)["reason"]}
    hits = [
        video["labels"] == [max(range(3), key=video["scores"].__getitem__)]
        for video in report["videos"]
        if video["scores"]
    ]
    assert float(figures["top1_acc"]) == pytest.approx(sum(hits) / 6, abs=1e-4)
    assert float(figures["top1_acc_listed"]) == pytest.approx(sum(hits) / 7, abs=1e-4)


@pytest.mark.slow
def test_a_compiled_model_trains_and_gives_the_same_scores(trained: Path, tmp_path: Path) -> None:
    scores = []
    for option in ([], ["--compile"]):
        options = ["--data", "clips/val", "--out", tmp_path / "scores.pkl", *option, "--cfg-options", *SMALL]
        result = iwin("test", "iwin_nano_demo", "run/best.safetensors", *options, cwd=trained)
        assert result.status == 0, result.err
        assert ("--compile gains nothing on a CPU" in result.err) is bool(option)
        scores.append(read_scores(tmp_path / "scores.pkl"))
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4, atol=1e-5)
    options = ["--data", "clips", "--work-dir", tmp_path / "run", "--compile", "--cfg-options", *SMALL]
    result = iwin("train", "iwin_nano_demo", *options, "total_epochs=1", cwd=trained)
    assert result.status == 0, result.err
    plain, compiled = (load_trained(run / "run" / "last.safetensors").model for run in (trained, tmp_path))
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def test_compiling_without_a_compiler_is_refused(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    options = ["--compile", "--data", "clips/val", "--cfg-options", *SMALL]
    result = iwin("test", "iwin_nano_demo", "run/best.safetensors", *options, cwd=trained)
    assert result.status == 1
    (line,) = (line for line in result.err.splitlines() if line.startswith("iwin: "))
    assert "--compile needs the compilers" in line


def test_testing_names_bad_videos_in_a_file_also_when_it_stops(trained: Path, tmp_path: Path) -> None:
    weights, good = trained / "run" / "best.safetensors", trained / "clips" / "val" / "class 0" / "0.mp4"
    lines = [f"{number}.mp4 0\n" for number in range(14)]
    for number in range(14):
        (tmp_path / f"{number}.mp4").write_bytes(b"not a video")
    test = ["test", "iwin_nano_demo", weights, "--data", "list.txt", "--cfg-options", *SMALL]

    (tmp_path / "list.txt").write_text(f"{good} 0\n")
    assert iwin(*test, cwd=tmp_path).status == 0
    assert not (tmp_path / "bad_files.jsonl").exists(), "nothing is to be named"

    (tmp_path / "list.txt").write_text(f"{good} 0\n" * 6 + "".join(lines))
    result = iwin(*test, "data.bad_videos.max_share=0.6", cwd=tmp_path)
    assert result.status == 1
    assert "iwin: list.txt: 13 of 20 videos could not be read, more than the 12 allowed" in result.err
    assert result.err.endswith("\nAll that were met are named in bad_files.jsonl\n")
    named = [json.loads(line)["path"] for line in (tmp_path / "bad_files.jsonl").read_text().splitlines()]
    assert named == [f"{number}.mp4" for number in range(13)]


def test_upstreams_options_of_testing_are_taken(trained: Path, tmp_path: Path) -> None:
    upstream = ["--gpu-collect", "--tmpdir", "somewhere", "--fuse-conv-bn", "--launcher", "none", "--local_rank", "0"]
    options = ["--average-clips", "score", "--out", tmp_path / "scores.pkl", "--data", "clips/val"]
    result = iwin(
        "test", "iwin_nano_demo", "run/best.safetensors", *upstream, *options, "--cfg-options", *SMALL, cwd=trained
    )
    assert result.status == 0, result.err
    notes = [line for line in result.err.splitlines() if line.startswith("note: --")]
    assert [note.split()[1] for note in notes] == ["--fuse-conv-bn", "--gpu-collect", "--tmpdir"]
    rows = read_scores(tmp_path / "scores.pkl")
    assert rows.shape == (7, 3)
    assert np.flatnonzero(np.isnan(rows).any(axis=1)).tolist() == [6]  # broken.mp4 is the last of the last class
    assert rows[:6].min() < 0  # logits, no probabilities


def test_the_weights_of_a_run_are_tested_at_its_end(trained: Path, tmp_path: Path) -> None:
    options = ["--data", "clips", "--work-dir", tmp_path / "run", "--test-last", "--test-best", "--gpus", "1"]
    result = iwin("train", "iwin_nano_demo", *options, "--cfg-options", *SMALL, "total_epochs=1", cwd=trained)
    assert result.status == 0, result.err
    titles = [line for line in result.out.splitlines() if line.startswith("test of ")]
    assert [Path(title).name for title in titles] == ["last.safetensors", "best.safetensors"]
    assert result.out.count("videos: 6\nlisted: 7\n") == 2
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["checkpoint"] for record in records if record["mode"] == "test"] == ["last", "best"]
    assert np.array_equal(
        read_scores(tmp_path / "run" / "last_pred.pkl"), read_scores(tmp_path / "run" / "best_pred.pkl"), equal_nan=True
    )


def test_prediction_needs_nothing_but_the_checkpoint(trained: Path) -> None:
    videos = ["clips/val/class 0/0.mp4", "clips/val/class 2/broken.mp4", "clips/val/class 1/1.mp4"]
    result = iwin("predict", *videos, "--checkpoint", "run/best.safetensors", "--json", cwd=trained)
    assert result.status == 1
    assert result.err.count("\n") == 1
    assert "broken.mp4" in result.err
    predictions = [json.loads(line) for line in result.out.splitlines()]
    assert [prediction["path"] for prediction in predictions] == [videos[0], videos[2]]
    for prediction in predictions:
        assert set(prediction["classes"]) == {"class 0", "class 1", "class 2"}
        assert sum(prediction["scores"]) == pytest.approx(1, abs=1e-4)
        assert prediction["scores"] == sorted(prediction["scores"], reverse=True)


@pytest.mark.slow
def test_prediction_goes_on_after_a_video_that_hangs(trained: Path) -> None:
    good = str(trained / "clips" / "val" / "class 0" / "0.mp4")
    options = ["--config", trained / "run" / "config.py", "--cfg-options", "data.bad_videos.time_limit=1"]
    with silent_server() as hangs:
        videos = [hangs, good, hangs, good]
        result = iwin("predict", *videos, "--checkpoint", "run/best.safetensors", "--json", *options, cwd=trained)
    assert result.status == 1
    assert result.err == f"iwin: {hangs}: nothing came for 1 seconds, so the process at it was killed\n" * 2
    first, second = map(json.loads, result.out.splitlines())
    assert first == second == first | {"path": good}


def test_reading_in_a_process_changes_no_score(trained: Path) -> None:
    predictor = Predictor(trained / "run" / "best.safetensors", device="cpu")
    videos = sorted((trained / "clips" / "val").glob("class */[01].mp4"))
    assert list(predictor.predict_each(videos, topk=3)) == [predictor.predict(video, topk=3) for video in videos]
    assert list(predictor.predict_each([])) == []


SCRIPT = """
from iwin import Predictor

print("once")
for prediction in Predictor("run/best.safetensors", device="cpu").predict_each(["clips/val/class 0/0.mp4"]):
    print(len(prediction.classes))
"""


@pytest.mark.slow
@pytest.mark.parametrize("piped", [False, True])
def test_a_script_that_reads_videos_in_a_process_runs_once(trained: Path, tmp_path: Path, piped: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-" if piped else script]
    done = subprocess.run(
        command, cwd=trained, input=SCRIPT if piped else None, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n3\n", "")


def test_scores_that_are_no_numbers_are_no_result(trained: Path, tmp_path: Path) -> None:
    weights = read_weights(trained / "run" / "best.safetensors")
    checkpoint, report = tmp_path / "weights.safetensors", tmp_path / "report.json"
    weights.state["cls_head.fc_cls.weight"].fill_(3e38)
    save_weights(checkpoint, weights.state, weights.metadata)
    for command in (
        ["predict", "clips/val/class 0/0.mp4", "--checkpoint", checkpoint, "--json"],
        ["test", "run/config.py", checkpoint, "--report", report, "--cpu", "--cfg-options", *SMALL],
    ):
        result = iwin(*command, cwd=trained)
        assert result.status == 1
        assert "0.mp4: its scores are not finite" in result.err
        assert "acc" not in result.out
    assert not report.exists()
    weights.state["backbone.norm.weight"].fill_(3e38)
    save_weights(checkpoint, weights.state, weights.metadata)
    (tmp_path / "list.txt").write_text("clips/val/class 0/0.mp4\n")
    options = ["--video-list", tmp_path / "list.txt", "--out", tmp_path / "out.npy", "--cpu", "--cfg-options", *SMALL]
    result = iwin("tool", "clip_feature_extraction", "run/config.py", checkpoint, *options, cwd=trained)
    assert result.status == 1
    assert "0.mp4: its scores are not finite" in result.err
    assert not (tmp_path / "out.npy").exists()
    weights.state["backbone.norm.weight"][1] = float("nan")
    save_weights(checkpoint, weights.state, weights.metadata)
    result = iwin("predict", "clips/val/class 0/0.mp4", "--checkpoint", checkpoint, cwd=trained)
    assert result.status == 1
    assert "not finite (backbone.norm.weight holds NaN" in result.err


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:77"])
def test_a_device_that_is_not_there_is_named(device: str, trained: Path) -> None:
    video = "clips/val/class 0/0.mp4"
    result = iwin("predict", video, "--checkpoint", "run/best.safetensors", "--device", device, cwd=trained)
    assert result.status == 1
    assert result.err.startswith(f"iwin: device {device!r} cannot be used here (")
    assert "\n" not in result.err.rstrip()


def test_what_a_program_gives_wrongly_is_told_as_to_users(trained: Path) -> None:
    predictor = Predictor(trained / "run" / "best.safetensors", device="cpu")
    with pytest.raises(ConfigError, match="topk is -1"):
        predictor.predict(trained / "clips" / "val" / "class 0" / "0.mp4", topk=-1)
    with pytest.raises(ModelError, match="num_classes is -1"):
        create_model("iwin_nano", num_classes=-1)
    with pytest.raises(CheckpointError, match="not True"):
        create_model("iwin_nano", pretrained=True)  # type: ignore[arg-type]


def test_prediction_prints_a_table(trained: Path) -> None:
    video = "clips/val/class 0/0.mp4"
    result = iwin("predict", video, "--checkpoint", "run/best.safetensors", "--topk", "2", cwd=trained)
    assert result.status == 0
    lines = result.out.splitlines()
    assert lines[0] == f"{video}  (mean of 6 views)"
    assert sum(f"class {label}" in line for line in lines[1:] for label in range(3)) == 2


def test_prediction_in_half_precision_gives_nearly_the_same(trained: Path) -> None:
    command = ["predict", "clips/val/class 0/0.mp4", "--checkpoint", "run/best.safetensors", "--json"]
    full = json.loads(iwin(*command, cwd=trained).out)
    half = json.loads(iwin(*command, "--precision", "bf16", cwd=trained).out)
    assert half["labels"] == full["labels"]
    assert half["scores"] == pytest.approx(full["scores"], abs=0.01)
    assert half["scores"] != full["scores"]


@pytest.mark.parametrize("has", [True, False])
def test_a_precision_that_the_cpu_is_slow_in_is_told(has: bool, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwin.build.accelerator.has_half", lambda _precision: has)
    predict = ["predict", "clips/val/class 0/0.mp4", "--checkpoint", "run/best.safetensors", "--device", "cpu"]
    test = ["test", "iwin_nano_demo", "run/best.safetensors", "--data", "clips/val", "--cpu", "--cfg-options", *SMALL]
    for command in (predict, test):
        result = iwin(*command, "--precision", "bf16", cwd=trained)
        assert result.status == 0, result.err
        assert ("note: this CPU does not multiply in bf16" in result.out + result.err) != has


@pytest.mark.slow
def test_a_terminated_run_goes_on_to_its_end(trained: Path, tmp_path: Path) -> None:
    run = [sys.executable, "-m", "iwin", "train", "iwin_nano_demo", "--data", str(trained / "clips")]
    options = ["--work-dir", "stopped", "--cfg-options", *SMALL, "total_epochs=3"]
    process = subprocess.Popen([*run, *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "stopped" / "log.jsonl"
    while not (log.exists() and '"train"' in log.read_text()):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume-from stopped" in said
    resumed = iwin(*run[3:], "--resume-from", "stopped/last.safetensors", *options, cwd=tmp_path)
    assert resumed.status == 0, resumed.err
    assert "resumed from stopped" in resumed.err
    assert (tmp_path / "stopped" / "epoch_3.safetensors").exists()


# ------------------------------------------------------------------------------------------- resuming


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    """A work directory after three epochs, the second the best, as far as resuming looks at it."""
    state = tmp_path / "run" / "state"
    state.mkdir(parents=True)
    (state / "progress.json").write_text(json.dumps({"epoch": 3, "batch": 0, "best": 0.5, "best_epoch": 2}))
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["", "latest.pth", "last.safetensors", "epoch_3.pth", "epoch_3.safetensors"])
def test_the_state_is_found_beside_a_checkpoint(work_dir: Path, name: str) -> None:
    assert Path(resume_folder(str(work_dir / name))) == work_dir


@pytest.mark.parametrize("name", ["epoch_2.safetensors", "best.safetensors"])
def test_the_state_of_another_epoch_is_not_taken_for_a_checkpoints(work_dir: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"is of epoch 2, but the training state beside it is of epoch 3"):
        resume_folder(str(work_dir / name))


def test_a_checkpoint_without_state_cannot_be_gone_on_from(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no training state beside it .* load_from=.*upstream\.pth"):
        resume_folder(str(tmp_path / "upstream.pth"))


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
        (["train", "iwin_nano_demo", "--data", "my,clips"], "only be named in a config file"),
        (["train", "iwin_nano_demo", "--seed", "-1"], "a seed lies in"),
        (["train", "iwin_nano_demo", "--resume-from", "nowhere.pth"], "load_from=nowhere.pth"),
        (["train", "iwin_nano_demo", "--test-best", "--no-validate"], "--test-best"),
        (["train", "iwin_nano_demo", "--gpus", "2"], "tools/dist_train.sh CONFIG 2"),
        (["train", "iwin_nano_demo", "--launcher", "slurm"], "SLURM_"),
        (["train", "iwin_nano_demo", "--launcher", "pytorch"], "torchrun"),
        (["test", "iwin_nano_demo", "nowhere.safetensors"], "nowhere.safetensors"),
        (["test", "iwin_nano_demo", "x.pth", "--eval", "top_k_acuracy"], "did you mean 'top_k_accuracy'"),
        (["test", "iwin_nano_demo", "x.pth", "--eval", "mean_average_precision"], "multi_class"),
        (["test", "iwin_nano_demo", "x.pth", "--eval-options", "topkk=3"], "did you mean 'topk'"),
        (["test", "iwin_nano_demo", "x.pth", "--out", "x.csv"], ".pkl, .yaml or .json"),
        (["test", "iwin_nano_demo", "x.pth", "--report", "/dev/null/x.json"], "/dev/null is no folder"),
        (["test", "iwin_nano_demo", "x.pth", "--onnx"], "--onnx"),
        (["predict", "a.mp4", "--checkpoint", "nowhere.safetensors"], "nowhere.safetensors"),
        (["predict", "a.mp4", "--checkpoint", "x", "--cfg-options", "a=1"], "--config"),
        (["flops", "iwin_nano", "--num-classes", "0"], "num_classes is 0"),
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


def test_lists_beside_the_videos_can_be_named_by_their_folder(tmp_path: Path) -> None:
    assert data_options(str(tmp_path))[:2] == ["data.train.ann_file=None", f"data.train.data_prefix={tmp_path}/train"]
    (tmp_path / "train.txt").touch()
    assert data_options(str(tmp_path))[:2] == [
        f"data.train.ann_file={tmp_path}/train.txt",
        f"data.train.data_prefix={tmp_path}",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_under_what_is_printed_is_told() -> None:
    command = [sys.executable, "-m", "iwin", "bench", "model", "--list"]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "iwin: nothing more can be written (No space left on device); make room and run it again\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_a_reader_that_has_enough_is_no_trouble() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "iwin", "bench", "model", "--list"]
    result = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")
