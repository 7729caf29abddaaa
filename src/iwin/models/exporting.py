"""Whether a model runs, or is written down as a program for other machines."""

import torch


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def is_exporting() -> bool:
    """Whether `torch.export` or `torch.jit.trace` is at work, whose programs must run without our kernels.

    Asked when a model is compiled, not traced into it: `torch.compile` in PyTorch 2.11 and 2.12 takes
    `torch.compiler.is_exporting` for always true.
    """
    return bool(torch.compiler.is_exporting() or torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
