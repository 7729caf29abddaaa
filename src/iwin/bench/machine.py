"""What a measurement ran on, and how much memory a process takes."""

import ctypes
import gc
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from iwin import __version__

PACKAGES = ("torch", "torchvision", "triton", "numpy", "transformers", "onnxruntime", "openvino", "accelerate")

CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "sve", "bf16")

VARIABLES = (
    *("MALLOC_", "GLIBC_", "LD_PRELOAD", "OMP_", "KMP_", "GOMP_", "MKL_", "ONEDNN_", "DNNL_", "ATEN_"),
    *("TORCH", "PYTORCH_", "CUDA_", "TRITON_", "IWIN_", "CXX"),
)
"""How the names of variables begin that change what is measured."""


def describe_machine() -> dict[str, Any]:
    """Processor, memory, GPU, system, package versions, and of a checkout of this program its commit."""
    import torch

    cpu = read_cpu()
    machine: dict[str, Any] = {
        "cpu": cpu.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in cpu.get("flags", cpu.get("Features", "")).split()],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"iwin": __version__} | {name: found for name in PACKAGES if (found := installed_version(name))},
        "commit": commit(Path(__file__).parents[3]),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        machine["gpu"] = {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return machine


def environment() -> dict[str, str]:
    """What the environment has of `VARIABLES`, but for what this program and PyTorch put there themselves."""
    own = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "TORCHINDUCTOR_CACHE_DIR")
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(VARIABLES) and name not in own}


def read_cpu() -> dict[str, str]:
    """Fields of the first processor in /proc/cpuinfo; none where there is no such file."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = path.read_text().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def installed_version(package: str) -> str | None:
    """Version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit(checkout: Path) -> str | None:
    """The commit of a checkout, with "-dirty" if its src differs; None where there is no checkout, or no git."""
    if not (checkout / ".git").exists():  # else git would tell of a repository around an environment
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - ours

    try:
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", "src") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def resident_bytes(*, peak: bool = False) -> int:
    """Memory of this process that is resident now, or at most since it began or `forget_peak` was called."""
    name = "VmHWM" if peak else "VmRSS"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def forget_peak() -> None:
    """Give what is free back to the system and begin the peak of resident memory anew."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
