"""Kernels in C++: compiling them when they are first needed, and keeping what comes of it.

Whoever has one has another way too, for machines without a compiler or with an older CPU.
"""

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC")

FLAGS_FOR = {"AVX512": FLAGS, "AVX2": (*FLAGS, "-mno-avx512f")}
"""By what PyTorch takes a CPU for: so `ATEN_CPU_CAPABILITY=avx2` has the kernels do without AVX-512, too."""

log = logging.getLogger(__name__)


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """The compiled kernels of a file, or of a folder's files; None where they cannot be had: the log has the reason.

    The environment variable IWIN_NATIVE=0 leaves them out. CXX names the compiler, by default g++. The result is kept
    in $XDG_CACHE_HOME/iwin (~/.cache/iwin) under a name made of all that it depends on.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    flags = FLAGS_FOR.get(torch.backends.cpu.get_cpu_capability())
    if os.environ.get("IWIN_NATIVE") == "0":
        reason = "IWIN_NATIVE is 0"
    elif platform.system() != "Linux" or flags is None:
        reason = "they need Linux and a CPU with AVX2 or AVX-512"
    elif compiler is None:
        reason = "there is no C++ compiler"
    else:
        try:
            return ctypes.CDLL(str(compiled(source, [compiler, *flags])))
        except subprocess.CalledProcessError as error:
            reason = f"{compiler} failed:\n{error.stderr}"
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
            reason = str(error)
    log.info("%s is not used: %s", source.name, reason)
    return None


@cache
def has(source: Path, function: str) -> bool:
    """Whether this machine runs a function of a library, which is compiled for that; where not, the log says why."""
    kernels = library(source)
    if kernels is None or hasattr(kernels, function):
        return kernels is not None
    log.info("%s of %s is not used: this CPU lacks instructions for it", function, source.name)
    return False


def compiled(source: Path, compiler: Sequence[str]) -> Path:
    """The shared library; compiled, if it is not there yet, by one process while others wait for it.

    Args:
        source: a file, or a folder of files.
        compiler: its command with the flags.

    Raises:
        OSError: if it cannot be written.
        CalledProcessError: if the compiler fails.
    """
    import fcntl  # Unix's alone, as is all of this

    version = run([compiler[0], "--version"])
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    sources = sorted(source.glob("*.cpp")) if source.is_dir() else [source]
    texts = [path.read_text() for path in (*sources, *sorted(sources[0].parent.glob("*.h")))]
    key = hashlib.sha256("\0".join([*texts, *compiler, version, cpu]).encode()).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iwin"
    path = folder / f"{source.stem}-{key[:16]}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        with contextlib.suppress(OSError):  # not every file system has locks; then each compiles for itself
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                link(sources, compiler, Path(scratch) / path.name).replace(path)  # others find all of it or nothing
    return path


def link(sources: Sequence[Path], compiler: Sequence[str], target: Path) -> Path:
    """Compile files side by side, and make one library of them."""
    objects = [target.with_name(f"{source.stem}.o") for source in sources]
    commands = [[*compiler, "-c", str(source), "-o", str(made)] for source, made in zip(sources, objects, strict=True)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(run, commands))
    run([*compiler, "-shared", *map(str, objects), "-o", str(target)])
    return target


def run(command: list[str]) -> str:
    """What a command printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - the user's compiler
