"""Real processes: the commands of the README, with two processes that talk to each other on the CPU."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from iwin.engine.scores import read_scores
from tests.commands import SMALL
from tests.runs import write_class_folders

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).parents[2] / "tools"
CONFIG = "iwin_nano_demo"
OPTIONS = ["--cfg-options", *SMALL, "total_epochs=1"]

SRUN = """\
#!/usr/bin/env bash
# The part of Slurm's srun that the scripts use: as many tasks as asked for, all on this machine.
for argument; do
  case $argument in --ntasks=*) tasks=${argument#*=} ;; esac
done
while [[ $1 != */python* ]]; do shift; done
export SLURM_NTASKS=$tasks SLURM_JOB_ID=$$ SLURM_NODELIST=localhost
for ((task = 0; task < tasks; task++)); do SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & done
status=0
for task in $(jobs -p); do wait "$task" || status=$?; done
exit $status
"""


def environment(**more: str) -> dict[str, str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "OMP_"))}
    return {**kept, "PYTHON": sys.executable, "PORT": str(port), **more}


def call(*command: object, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


@pytest.fixture(scope="module")
def single(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of seven videos by one process, through the README's command."""
    out = tmp_path_factory.mktemp("single") / "scores.pkl"
    options = ["--eval", "top_k_accuracy", "--data", "clips/val", "--out", out, *OPTIONS]
    result = call(sys.executable, TOOLS / "test.py", CONFIG, "run/last.safetensors", *options, cwd=trained)
    assert result.returncode == 0, result.stderr
    assert "videos: 6\nlisted: 7\n" in result.stdout
    return out


TEST = [TOOLS / "test.py", CONFIG, "run/last.safetensors"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--main_process_port", "PORT"]


@pytest.mark.parametrize(
    "launch",
    [
        ["bash", TOOLS / "dist_test.sh", CONFIG, "run/last.safetensors", "2"],
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "PORT", *TEST],
        [sys.executable, *ACCELERATE, *TEST],
        ["bash", TOOLS / "slurm_test.sh", "part", "job", CONFIG, "run/last.safetensors"],
    ],
    ids=["dist_test.sh", "torchrun", "accelerate", "slurm_test.sh"],
)
def test_two_processes_give_the_scores_of_one(
    launch: list[object], trained: Path, single: Path, tmp_path: Path
) -> None:
    """Seven videos do not divide by two: each is still scored once."""
    with_srun(tmp_path)
    out = tmp_path / "scores.pkl"
    environ = {"GPUS": "2", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [environment()["PORT"] if part == "PORT" else part for part in launch]
    options = ["--eval", "top_k_accuracy", "--data", "clips/val", "--out", out, *OPTIONS]
    result = call(*command, *options, cwd=trained, **environ)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("top1_acc:") == 1
    assert "videos: 6\nlisted: 7\n" in result.stdout
    assert np.array_equal(read_scores(out), read_scores(single), equal_nan=True)


def with_srun(folder: Path) -> None:
    program = folder / "srun"
    program.write_text(SRUN)
    program.chmod(0o755)


def test_a_job_of_one_slurm_task(trained: Path, single: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.pkl"
    slurm = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0", "SLURM_NODELIST": "localhost"}
    options = ["--launcher", "slurm", "--data", "clips/val", "--out", out, *OPTIONS]
    command = [sys.executable, TOOLS / "test.py", CONFIG, "run/last.safetensors"]
    result = call(*command, *options, cwd=trained, **slurm)
    assert result.returncode == 0, result.stderr
    assert np.array_equal(read_scores(out), read_scores(single), equal_nan=True)


def test_two_processes_train_to_the_end(trained: Path, tmp_path: Path) -> None:
    options = ["--data", "clips", "--work-dir", tmp_path / "run", "--test-last", *OPTIONS, "data.workers_per_gpu=1"]
    result = call("bash", TOOLS / "dist_train.sh", CONFIG, "2", *options, cwd=trained)
    assert result.returncode == 0, result.stderr
    assert "2 x cpu" in result.stderr
    assert "test of " in result.stdout
    assert "Warning" not in result.stderr
    assert {"last.safetensors", "best.safetensors", "last_pred.pkl", "state"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_training_alone_goes_by_the_script_too(trained: Path, tmp_path: Path) -> None:
    """With decoder processes, which import the script again."""
    options = ["--data", "clips", "--work-dir", tmp_path / "run", *OPTIONS, "data.workers_per_gpu=1"]
    weights = f"model.backbone.pretrained={trained / 'run' / 'last.safetensors'}"
    result = call(
        *[sys.executable, TOOLS / "train.py", CONFIG, *options, weights, "model.backbone.use_checkpoint=True"],
        cwd=trained,
    )
    assert result.returncode == 0, result.stderr
    assert "tensors loaded" in result.stderr
    assert (tmp_path / "run" / "epoch_1.safetensors").exists()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_processes_that_are_stopped_together_save_their_state(
    trained: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    options = ["--data", "clips", "--work-dir", str(tmp_path / "run"), *OPTIONS[:-1], "total_epochs=500"]
    command = ["bash", str(TOOLS / "dist_train.sh"), CONFIG, "2", *options]
    run = subprocess.Popen(command, cwd=trained, env=environment(), stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    while not (log.exists() and '"train"' in log.read_text()):
        assert run.poll() is None, run.stderr and run.stderr.read()
        time.sleep(0.1)
    run.send_signal(stop)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 128 + stop
    assert said.splitlines()[-1].endswith(f"--resume-from {tmp_path / 'run'}")
    assert "Traceback" not in said
    assert (tmp_path / "run" / "state" / "random_states_1.pkl").exists()


def test_a_mistake_is_told_once_by_all_processes(trained: Path) -> None:
    result = call("bash", TOOLS / "dist_test.sh", CONFIG, "run/nowhere.pth", "2", "--data", "clips/val", cwd=trained)
    assert result.returncode == 1
    assert result.stderr == "iwin: run/nowhere.pth: there is no such checkpoint file\n"


def test_a_port_that_is_taken_is_told_of(trained: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = call("bash", TOOLS / "dist_test.sh", CONFIG, "x.pth", "2", cwd=trained, PORT=port)
    assert result.returncode == 1
    assert result.stderr.startswith(f"iwin: port {port} cannot be used")


def test_two_processes_survive_bad_videos_and_name_each_once(tmp_path: Path) -> None:
    clips = write_class_folders(tmp_path / "clips" / "train", clips=4)
    (clips / "class 1" / "2.mp4").write_bytes(b"no video")
    options = ["--data", "clips", "--no-validate", "--work-dir", "run", *OPTIONS, "total_epochs=2"]
    result = call("bash", TOOLS / "dist_train.sh", CONFIG, "2", *options, "data.workers_per_gpu=1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("bad video") == 1
    (line,) = (tmp_path / "run" / "bad_files.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == "clips/train/class 1/2.mp4"


def test_two_processes_stop_together_at_too_many_bad_videos(tmp_path: Path) -> None:
    clips = write_class_folders(tmp_path / "clips" / "train", clips=6)
    for path in sorted(clips.rglob("[1-5].mp4"))[:12]:
        path.write_bytes(b"no video")
    options = ["--data", "clips", "--no-validate", "--work-dir", "run", *OPTIONS, "data.workers_per_gpu=1"]
    result = call("bash", TOOLS / "dist_train.sh", CONFIG, "2", *options, cwd=tmp_path)
    assert result.returncode != 0
    assert result.stderr.count("with everything saved") == 1
    assert re.search(r"\d+ of 18 videos could not be read, more than the 1 allowed", result.stderr)
    assert (tmp_path / "run" / "state" / "progress.json").exists()
