"""What the command sets for its process."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from iwin.process import keep_memory, spare_cores
from tests.commands import SMALL

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP and C library are there on Linux alone")

STAYS = """
import torch
from iwin.bench.machine import resident_bytes
large = torch.ones(2**25)
before = resident_bytes()
del large
print(resident_bytes() > before - 2**26)
"""
"""A program that tells whether memory stays with its process when 128 MB are freed."""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_wait_as_their_user_says(
    given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    spare_cores()
    assert os.environ == expected


@pytest.mark.slow
@on_linux
def test_pytorchs_openmp_reads_it() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    program = "from iwin.process import spare_cores; spare_cores(); import torch"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "GOMP_SPINCOUNT = '10000'" in done.stderr


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize(
    ("program", "environment", "stays"),
    [
        ("", {}, "False"),
        ("from iwin.process import keep_memory; keep_memory()", {}, "True"),
        ("from iwin.process import keep_memory; keep_memory()", {"MALLOC_ARENA_MAX": "4"}, "False"),
        ("from iwin.process import keep_memory; keep_memory()", {"GLIBC_TUNABLES": "glibc.malloc.check=0"}, "False"),
    ],
)
def test_freed_memory_stays_as_its_user_says(program: str, environment: dict[str, str], stays: str) -> None:
    assert run(program + STAYS, environment).splitlines() == [stays]


@on_linux
@pytest.mark.parametrize(
    ("most", "taken"),
    [(2**31, [(-3, 2**31 - 1), (-1, 2**31 - 1)]), (2**25, [(-3, 2**25), (-1, 2**31 - 1)]), (0, [])],
)
def test_a_c_library_may_take_less(most: int, taken: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of GNU's take a lower threshold; without any the other one would do harm."""
    took: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        if parameter == -3 and value > most:
            return 0
        took.append((parameter, value))
        return 1

    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    assert keep_memory() == bool(taken)
    assert took == taken


@pytest.mark.slow
@on_linux
def test_training_on_a_cpu_keeps_memory(trained: Path, tmp_path: Path) -> None:
    options = ["--data", str(trained / "clips"), "--work-dir", str(tmp_path), "--cpu", "--cfg-options", *SMALL]
    arguments = ["train", "iwin_nano_demo", *options, "total_epochs=1"]
    assert run(f"from iwin.cli import main; main({arguments})" + STAYS, {}).splitlines()[-1] == "True"


def run(program: str, environment: dict[str, str]) -> str:
    """What a program prints whose user sets nothing of the allocator but this."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", program], env=others | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
