import ctypes
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from iwin.data import rgb
from iwin.models.native import common
from iwin.native import FLAGS, FLAGS_FOR, compiled, has, library
from iwin.transforms import bilinear

SOURCE = bilinear.SOURCE

GCC = ["g++", *FLAGS]

needs_kernels = pytest.mark.skipif(library(SOURCE) is None, reason="the kernels cannot be compiled here")


@needs_kernels
def test_kernels_are_compiled_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = compiled(SOURCE, GCC)
    written = path.stat().st_mtime_ns
    assert {found.name for found in (tmp_path / "iwin").iterdir()} == {path.name, f"{path.stem}.lock"}
    assert compiled(SOURCE, GCC) == path
    assert path.stat().st_mtime_ns == written


@needs_kernels
def test_a_changed_header_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source, header = tmp_path / "a.cpp", tmp_path / "a.h"
    source.write_text('#include "a.h"\nextern "C" int number() { return NUMBER; }\n')
    found = []
    for number in (1, 2):
        header.write_text(f"#define NUMBER {number}\n")
        found.append(ctypes.CDLL(str(compiled(source, GCC))).number())
    assert found == [1, 2]


@pytest.mark.slow
@needs_kernels
def test_of_many_processes_one_compiles(tmp_path: Path) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *shared*) echo >> {tmp_path}/calls;; esac\nexec g++ "$@"\n')
    compiler.chmod(0o755)
    code = "from iwin.data.rgb import SOURCE; from iwin.native import library; assert library(SOURCE)"
    surroundings = os.environ | {"CXX": str(compiler), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    running = [subprocess.Popen([sys.executable, "-c", code], env=surroundings) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


@pytest.fixture
def fresh_library() -> Callable[[Path], object]:
    """`library` without its memory."""
    return library.__wrapped__


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("IWIN_NATIVE", "0", "IWIN_NATIVE is 0"),
        pytest.param("CXX", "no-such-compiler", "no C++ compiler", marks=needs_kernels),
        pytest.param("CXX", "false", "false", marks=needs_kernels),
    ],
)
def test_what_keeps_the_kernels_away_is_logged_and_no_error(
    variable: str,
    value: str,
    reason: str,
    fresh_library: Callable[[Path], object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert fresh_library(SOURCE) is None
    assert reason in caplog.text


@needs_kernels
def test_a_kernel_that_a_cpu_has_not_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert not has(SOURCE, "fly")
        assert not has(SOURCE, "fly")
    assert [record.getMessage() for record in caplog.records] == [
        "fly of bilinear.cpp is not used: this CPU lacks instructions for it"
    ]


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("cpu", FLAGS_FOR)
@pytest.mark.parametrize(
    "source", [rgb.SOURCE, bilinear.SOURCE, *sorted(common.SOURCE.glob("*.cpp"))], ids=lambda source: source.name
)
def test_compiler_warns_of_nothing(source: Path, cpu: str, tmp_path: Path) -> None:
    flags = [flag for flag in FLAGS_FOR[cpu] if flag != "-O3"]  # with which it warns of its own headers
    command = ["g++", *flags, "-Wall", "-Wextra", "-fsyntax-only", str(source)]
    assert subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stderr == ""


@pytest.mark.slow
@needs_kernels
def test_the_models_kernels_do_with_avx2() -> None:
    names = ["block_fp32_fp32_fp32", "block_fp32_bf16_fp32"]  # the latter needs instructions for bf16
    code = f"from iwin.models.native.common import exists; print([exists(name) for name in {names}])"
    command, environment = [sys.executable, "-c", code], os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[True, False]\n"
