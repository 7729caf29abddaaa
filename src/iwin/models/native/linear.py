"""Layers on CPUs without gradients: linear ones through oneDNN in every precision, an MLP's a slice at a time.

PyTorch's own way copies the bias into the result before it multiplies, and in fp32 multiplies by MKL, which is slower
on AMD's CPUs.
"""

import torch
from torch import Tensor, nn

from iwin.models.native import tokens
from iwin.models.native.common import infers
from iwin.models.surroundings import compute_dtype


class Linear(nn.Linear):
    """A linear layer that takes the fastest way where `infers` holds."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        if not infers(x):
            return super().forward(x)
        dtype = compute_dtype(x)
        bias = None if self.bias is None else self.bias.to(dtype)
        return torch.ops.mkldnn._linear_pointwise(x.to(dtype), self.weight.to(dtype), bias, "none", [], "")


def add_mlp(x: Tensor, plus: Tensor, norm: nn.LayerNorm, mlp: nn.Module) -> Tensor:
    """The sum s = x + plus of maps (..., C), and on top of it what an MLP makes of its norm: s + mlp(norm(s)).

    Needs `infers`, and that nobody looks at the layers' calls: they get a slice of tokens (n, C) at a time. What it
    becomes on the way stays in the CPU's caches, and that of all tokens is never there at once.
    """
    result = torch.empty(x.shape, dtype=torch.result_type(x, plus))
    count = 1024 * torch.get_num_threads()
    slices = (map_.flatten(0, -2).split(count) for map_ in (x, plus, result))
    for part, more, made in zip(*slices, strict=True):
        if more.dtype == compute_dtype(part) and tokens.norms(part, norm):
            tokens.add_(made, mlp(tokens.add_and_norm(part, more, norm, total=made)))
        else:
            torch.add(part, more, out=made)
            made += mlp(norm(made))
    return result
