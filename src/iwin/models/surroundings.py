"""What surrounds a layer when it is called, by which it chooses its way: export and autocast."""

import torch
from torch import Tensor


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def is_exporting() -> bool:
    """Whether `torch.export` or `torch.jit.trace` is at work, whose programs must run without our kernels.

    Asked when a model is compiled, not traced into it: `torch.compile` in PyTorch 2.11 takes
    `torch.compiler.is_exporting` for always true.
    """
    return bool(torch.compiler.is_exporting() or torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def compute_dtype(x: Tensor) -> torch.dtype:
    """In which precision a layer computes on x: its own, or autocast's."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
