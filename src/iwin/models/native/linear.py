"""Linear layers on CPUs, through oneDNN in every precision.

PyTorch's own way copies the bias into the result before it multiplies, and in fp32 multiplies by MKL, which is slower
on AMD's CPUs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwin.models.native.common import infers, is_plain, multiplies
from iwin.models.surroundings import compute_dtype


class Linear(nn.Linear):
    """A linear layer that takes the fastest way there is."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        if not multiplies(x) or not is_plain(x, self.weight, self.bias):
            return super().forward(x)
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a linear layer makes of x (..., in), which `multiplies` and `is_plain` accept, as `F.linear`."""
    if not torch.is_grad_enabled():
        return multiply(*in_precision(x, weight, bias))
    made: Tensor = _Linear.apply(x, weight, bias)
    return made


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight, bias = in_precision(x, weight, bias)
        ctx.save_for_backward(x, weight)
        return multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        of_x = multiply(grad, weight.t()) if needs_x else None
        of_weight = weight_gradient(x, grad) if needs_weight else None
        of_bias = grad.flatten(0, -2).sum(0) if needs_bias else None
        return of_x, of_weight, of_bias  # autograd turns them to the precision of what was given


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What a linear layer makes of x (..., in), by a weight (out, in) and a bias (out,) of the same precision."""
    if not infers(x):  # a gradient that is to have one itself
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient (out, in) of a weight from a layer's input (..., in) and the gradient of its result (..., out)."""
    return grad.flatten(0, -2).t() @ x.flatten(0, -2)


def in_precision(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a product takes, in the precision that it has."""
    dtype = compute_dtype(x)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
