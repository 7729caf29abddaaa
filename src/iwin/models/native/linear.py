"""Linear layers on CPUs, by compiled kernels, or by oneDNN where those are not for a layer or a CPU.

The kernels read weights as they are. For oneDNN they are turned to the precision of products, and by it put into an
order of its own, at each call. PyTorch's own way copies the bias into the result first.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwin.models.native.common import (
    MULTIPLE,
    NAMES,
    call,
    fit,
    is_plain,
    multiplies,
    numbers_of,
    readable,
    reads,
    sizes_of,
)
from iwin.models.surroundings import compute_dtype


class Linear(nn.Linear):
    """A linear layer that takes the fastest way there is."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `F.linear`: what weight (out, in) and bias (out,) make of x (..., in), in x's precision or autocast's."""
    if not multiplies(x) or not is_plain(x) or not fits(x.shape[-1], weight, bias):
        return F.linear(x, weight, bias)
    x = x.to(compute_dtype(x))
    if not torch.is_grad_enabled():
        return multiply(x, weight, bias)
    made: Tensor = _Linear.apply(x, weight, bias)
    return made


def fits(ins: int, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether kernels can read weight and bias, those of a layer that takes so many numbers, and gives some."""
    outs = weight.shape[:1]
    return bool(weight.numel()) and fit([weight, bias], [(*outs, ins), (*outs,)])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        of_x = multiply(grad, weight, turned=True) if needs_x else None
        of_weight, of_bias = None, None
        if needs_weight:
            of_weight, of_bias = gradients(x, grad)
        elif needs_bias:
            of_bias = _over_rows(grad)
        # Autograd turns them to the precision of what was given.
        return of_x, of_weight, of_bias if needs_bias else None


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, turned: bool = False) -> Tensor:
    """What a linear layer makes of x, in whose precision it computes.

    Args:
        x: (..., in).
        weight: (out, in), or (in, out) if it is `turned`.
        bias: (out,).
        turned: as the gradient of a layer's input takes the layer's weight.
    """
    outs = weight.shape[1 if turned else 0]
    kernel = _kernel_for(x, outs, "linear", weight)
    if kernel is not None:
        x, weight, made = x.contiguous(), weight.contiguous(), x.new_empty(*x.shape[:-1], outs)
        call(kernel, x, weight, numbers_of(bias), made, int(turned), *sizes_of(x), outs)
        return made
    weight = (weight.t() if turned else weight).to(x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    if torch.is_grad_enabled():  # a gradient that is to have one itself
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def gradients(x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of a weight (out, in) and of a bias (out,).

    Args:
        x: (..., in), what the layer was given.
        grad: (..., out), the gradient of what it made.
    """
    outs = grad.shape[-1]
    kernel = _kernel_for(x, outs, "weight_gradient")
    if kernel is not None:
        x, grad = x.contiguous(), readable(grad)
        of_weight, of_bias = (x.new_empty(size, dtype=torch.float32) for size in ((outs, x.shape[-1]), (outs,)))
        call(kernel, x, grad, of_weight, of_bias, *sizes_of(x), outs)
        return of_weight, of_bias
    return grad.reshape(-1, outs).t() @ x.reshape(-1, x.shape[-1]), _over_rows(grad)


def _over_rows(grad: Tensor) -> Tensor:
    return grad.reshape(-1, grad.shape[-1]).sum(0, dtype=torch.float32)


def _kernel_for(x: Tensor, outs: int, name: str, weight: Tensor | None = None) -> str | None:
    """The kernel by the name of what it does for x (..., in) and a layer of so many results, if there is one.

    It has no gradients, and takes contiguous tensors: x as it is, weights in fp32 as well, and biases in fp32 alone.
    """
    if torch.is_grad_enabled() or x.shape[-1] % MULTIPLE or outs % MULTIPLE:
        return None
    kinds = [str(NAMES.get(tensor.dtype)) for tensor in (weight, x) if tensor is not None]
    kernel = "_".join([name, *kinds])
    return kernel if reads(kernel, x, weight) else None
