"""The scripts under tools/, by themselves: their form, their help, and the command lines that they make."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
PYTHON = sorted(TOOLS.rglob("*.py"))
SHELL = sorted(TOOLS.rglob("*.sh"))


def name(path: Path) -> str:
    return str(path.relative_to(TOOLS))


@pytest.mark.parametrize("path", [*PYTHON, *SHELL], ids=name)
def test_a_shim_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 10


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_a_script_answers_help(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(path), run_name="__main__")
    assert left.value.code == 0
    assert "usage: iwin " in capsys.readouterr().out


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_a_decoder_process_that_imports_the_script_runs_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    runpy.run_path(str(path), run_name="__mp_main__")


# ------------------------------------------------------------------------------------------- shell


def run(script: str, *args: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a script where `python` and `srun` only print their arguments, one a line."""
    for command in ("python", "srun"):
        program = cwd / "bin" / command
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho {command}\nprintf '%s\\n' \"$@\"\n")
        program.chmod(0o755)
    environment = {**os.environ, **environ, "PATH": f"{cwd / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", str(TOOLS / script), *args], env=environment, capture_output=True, text=True, check=False
    )


def test_dist_train(tmp_path: Path) -> None:
    options = ["--cfg-options", "model.backbone.pretrained=a b.pth", "model.backbone.use_checkpoint=True"]
    made = run("dist_train.sh", "config.py", "8", *options, cwd=tmp_path, PORT="29501").stdout.splitlines()
    assert made[:5] == ["python", "-m", "iwin.cli.torchrun", "--nproc-per-node=8", "--master-port=29501"]
    script = made.index(str(TOOLS / "train.py"))
    assert made[script + 1 :] == ["config.py", "--launcher", "pytorch", "--validate", *options]


def test_dist_test(tmp_path: Path) -> None:
    options = ["--eval", "top_k_accuracy"]
    made = run("dist_test.sh", "config.py", "checkpoint.pth", "2", *options, cwd=tmp_path).stdout.splitlines()
    assert made[:5] == ["python", "-m", "iwin.cli.torchrun", "--nproc-per-node=2", "--master-port=29500"]
    script = made.index(str(TOOLS / "test.py"))
    assert made[script + 1 :] == ["config.py", "checkpoint.pth", "--launcher", "pytorch", *options]


def test_slurm_train(tmp_path: Path) -> None:
    environ = {"GPUS": "16", "SRUN_ARGS": "--exclude n1 --quiet", "CPUS_PER_TASK": "3"}
    made = run("slurm_train.sh", "part", "job", "config.py", "work dir", "--seed", "1", cwd=tmp_path, **environ)
    lines = made.stdout.splitlines()
    assert lines[:4] == ["srun", "-p", "part", "--job-name=job"]
    assert {"--gres=gpu:8", "--ntasks=16", "--ntasks-per-node=8", "--cpus-per-task=3", "--exclude", "n1"} <= set(lines)
    assert lines[lines.index("python") :] == [
        *["python", "-u", str(TOOLS / "train.py"), "config.py"],
        *["--work-dir=work dir", "--launcher=slurm", "--seed", "1"],
    ]


def test_slurm_test(tmp_path: Path) -> None:
    made = run("slurm_test.sh", "part", "job", "config.py", "x.pth", "--eval", "top_k_accuracy", cwd=tmp_path, GPUS="2")
    lines = made.stdout.splitlines()
    assert {"--gres=gpu:2", "--ntasks=2", "--ntasks-per-node=2"} <= set(lines)
    assert lines[lines.index(str(TOOLS / "test.py")) + 1 :] == [
        *["config.py", "x.pth", "--launcher=slurm", "--eval", "top_k_accuracy"]
    ]


@pytest.mark.parametrize("path", SHELL, ids=name)
def test_too_few_arguments_get_the_usage(path: Path, tmp_path: Path) -> None:
    result = run(name(path), "config.py", "checkpoint.pth", "two", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("usage: bash ")
    assert result.stderr.count("\n") == 1
