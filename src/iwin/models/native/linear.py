"""Layers on CPUs without gradients: linear ones through oneDNN in every precision, an MLP's a slice at a time.

PyTorch's own way copies the bias into the result before it multiplies, and in fp32 multiplies by MKL, which is slower
on AMD's CPUs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from iwin.models.surroundings import compute_dtype, needs_pytorch

_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """A linear layer that takes the fastest way where `infers` holds."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        if not infers(x):
            return super().forward(x)
        dtype = compute_dtype(x)
        bias = None if self.bias is None else self.bias.to(dtype)
        return torch.ops.mkldnn._linear_pointwise(x.to(dtype), self.weight.to(dtype), bias, "none", [], "")


def by_slices(layers: Callable[[Tensor], Tensor], x: Tensor, *, whole: bool = False) -> Tensor:
    """What `layers`, which map each token by itself, make of x (..., C); same shape out.

    Where `infers` holds, `layers` get a slice of tokens (n, C) at a time: what it becomes on the way stays in the CPU's
    caches, and that of all tokens is never there at once. `whole` has all of it done at once, for layers that look at
    samples as stochastic depth does, and those that somebody looks at.
    """
    if whole or not infers(x):
        return layers(x)
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    count = 1024 * torch.get_num_threads()
    for part, made in zip(x.flatten(0, -2).split(count), result.flatten(0, -2).split(count), strict=True):
        made.copy_(layers(part))
    return result


def infers(x: Tensor) -> bool:
    """Whether x goes through a layer on a CPU eagerly, without gradients, in a precision that oneDNN has there."""
    if x.device.type != "cpu" or torch.is_grad_enabled() or not _AVAILABLE:
        return False
    if torch.compiler.is_compiling() or needs_pytorch():
        return False
    dtype = compute_dtype(x)
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
