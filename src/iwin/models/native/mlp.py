"""An MLP on CPUs, whose hidden layer is four times as large as its map: never all there, or kept but once."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from iwin.models.native import tokens
from iwin.models.native.common import MULTIPLE, is_plain, readable
from iwin.models.native.linear import Linear, fits, gradients, multiply
from iwin.models.surroundings import compute_dtype, is_gelu, is_watched

# ---------------------------------------------------------------------------------------- without gradients


def add_mlp(x: Tensor, plus: Tensor, norm: nn.LayerNorm, mlp: nn.Module) -> Tensor:
    """The sum s = x + plus of maps (..., C), and on top of it what an MLP makes of its norm: s + mlp(norm(s)).

    Needs `infers`, and layers that take each token for itself and whose calls nobody looks at: they get a slice of
    tokens (n, C) at a time. What it becomes on the way stays in the CPU's caches, and that of all tokens is never there
    at once.
    """
    x, plus = (map_.contiguous() for map_ in torch.broadcast_tensors(x, plus))
    result = x.new_empty(x.shape, dtype=torch.result_type(x, plus))
    count = 1024 * torch.get_num_threads()
    slices = (map_.flatten(0, -2).split(count) for map_ in (x, plus, result))
    for part, more, made in zip(*slices, strict=True):
        if more.dtype == compute_dtype(part) and is_plain(more) and tokens.norms(part, norm):
            tokens.add_(made, mlp(tokens.add_and_norm(part, more, norm, total=made)))
        else:
            torch.add(part, more, out=made)
            made += mlp(norm(made))
    return result


# ---------------------------------------------------------------------------------------- with gradients


def takes(x: Tensor, wide: nn.Module, activation: nn.Module, drop: nn.Module, narrow: nn.Module) -> bool:
    """Whether `apply` does to x (..., C) what these layers do, and nobody looks at their calls."""
    if not torch.is_grad_enabled() or not tokens.takes(x) or is_watched(wide, activation, drop, narrow):
        return False
    if type(wide) is not Linear or type(narrow) is not Linear or wide.out_features % MULTIPLE:
        return False
    if not fits(x.shape[-1], wide.weight, wide.bias) or not fits(len(wide.weight), narrow.weight, narrow.bias):
        return False
    return is_gelu(activation) and type(drop) is nn.Dropout and not (drop.training and drop.p)


def apply(x: Tensor, wide: Linear, narrow: Linear) -> Tensor:
    """What two linear layers with a GELU between them make of x (..., C), which `takes` accepts.

    For the backward pass the hidden layer is kept as it is before the GELU; what that makes of it comes about once more
    together with its gradient.
    """
    made: Tensor = _Mlp.apply(x.to(compute_dtype(x)), wide.weight, wide.bias, narrow.weight, narrow.bias)
    return made


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, wide: Tensor, wide_bias: Tensor | None, narrow: Tensor, narrow_bias: Tensor | None
    ) -> Tensor:
        hidden = multiply(x, wide, wide_bias)
        ctx.save_for_backward(x, wide, hidden, narrow)
        return multiply(tokens.gelu(hidden, torch.empty_like(hidden)), narrow, narrow_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, wide, hidden, narrow = ctx.saved_tensors
        grad = readable(grad)
        of_hidden = multiply(grad, narrow, turned=True)
        active = tokens.gelu_backward_(hidden, of_hidden)
        made = (multiply(of_hidden, wide, turned=True), *gradients(x, of_hidden), *gradients(active, grad))
        return tuple(of if needed else None for of, needed in zip(made, ctx.needs_input_grad, strict=True))
