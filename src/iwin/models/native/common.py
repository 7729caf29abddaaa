"""What the kernels share: their precisions, and when they run."""

from pathlib import Path

import torch
from torch import Tensor

from iwin.models.surroundings import compute_dtype, needs_pytorch
from iwin.native import has

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
"""How the kernels' names end, by precision."""


def runs(source: Path, x: Tensor) -> bool:
    """Whether the kernels of a file run on x, by its device and precision, on this machine."""
    if needs_pytorch() or x.device.type != "cpu":
        return False
    dtype = compute_dtype(x)
    return dtype in NAMES and _has(source, f"forward_{NAMES[dtype]}")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has(source: Path, name: str) -> bool:
    return has(source, name)
