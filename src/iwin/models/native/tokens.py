"""The compiled LayerNorm, GELU and sums, for which PyTorch takes more passes and slower formulas.

They are for eager execution: `torch.compile` joins such layers with what stands around them, and does it better.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from iwin.models.native.common import MULTIPLE, NAMES, call, fit, is_plain, numbers_of, readable, runs, sizes_of
from iwin.models.surroundings import compute_dtype

# ---------------------------------------------------------------------------------------- LayerNorm and sums

_PAIRS = {"fp32_fp32", "fp32_bf16", "bf16_bf16"}
"""Precisions of maps, and of the products that read what is made of them."""


def norms(x: Tensor, norm: nn.LayerNorm) -> bool:
    """Whether `layer_norm` can do what a layer does to x (..., C)."""
    return takes(x) and _pair(x) in _PAIRS and fits(x.shape[-1], norm)


def fits(channels: int, norm: nn.LayerNorm) -> bool:
    """Whether a layer normalises so many channels, with a weight and a bias that kernels can read."""
    parameters = (norm.weight, norm.bias)
    if norm.normalized_shape != (channels,) or any(parameter is None for parameter in parameters):
        return False
    return fit(parameters, [(channels,), (channels,)])


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """What a layer makes of x (..., C), which `norms` accepts, in the precision of the products that read it."""
    if torch.is_grad_enabled():
        made: Tensor = _LayerNorm.apply(x, norm.weight, norm.bias, norm.eps)
        return made
    return _norm(x.contiguous(), norm.weight, norm.bias, norm.eps)


def add_and_norm(x: Tensor, plus: Tensor, norm: nn.LayerNorm, *, total: Tensor) -> Tensor:
    """Write x + plus to `total`, and give its norm, without gradients.

    Args:
        x: (..., C), contiguous; `norms` accepts it.
        plus: like x, but in the precision that products have, as is the result.
        norm: the layer.
        total: like x.
    """
    return _norm(x, norm.weight, norm.bias, norm.eps, plus=plus, total=total)


def add_(x: Tensor, plus: Tensor) -> None:
    """Add what products gave to x (..., C), contiguous, which `norms` accepts; without gradients."""
    call(f"add_{_pair(x)}", x, plus.contiguous(), x, x.numel())


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        stats = x.new_empty(x.numel() // x.shape[-1], 2, dtype=torch.float32)
        ctx.save_for_backward(x, weight, stats)
        ctx.pair = _pair(x)
        return _norm(x, weight, bias, eps, stats=stats)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, stats = ctx.saved_tensors
        of_x, of_weights = torch.empty_like(x), x.new_empty(2, x.shape[-1], dtype=torch.float32)
        given = (x, stats, numbers_of(weight), readable(grad))
        call(f"norm_backward_{ctx.pair}", *given, None, of_x, of_weights, *sizes_of(x))
        return of_x, of_weights[0], of_weights[1], None  # autograd turns them to the precision of what was given


def _norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    plus: Tensor | None = None,
    total: Tensor | None = None,
    stats: Tensor | None = None,
) -> Tensor:
    out = x.new_empty(x.shape, dtype=compute_dtype(x))
    given = (x, plus, numbers_of(weight), numbers_of(bias), float(eps))
    call(f"norm_{_pair(x)}", *given, total, out, stats, *sizes_of(x))
    return out


# ---------------------------------------------------------------------------------------- GELU


def gelu(x: Tensor, out: Tensor) -> Tensor:
    """Write to `out` GELU (erf form) of x, within 3e-7 |x| in fp32, as PyTorch's; without gradients.

    Args:
        x: (..., C), contiguous; `takes` accepts it.
        out: like x; x itself will do.

    Returns:
        `out`.
    """
    call(f"gelu_{NAMES[x.dtype]}", x, out, x.numel())
    return out


def gelu_backward_(x: Tensor, grad: Tensor) -> Tensor:
    """Turn the gradient of gelu(x) into that of x.

    Args:
        x: (..., C), contiguous; `takes` accepts it.
        grad: like x; what is overwritten.

    Returns:
        gelu(x) once more, which need not be kept for this.
    """
    made = torch.empty_like(x)
    call(f"gelu_backward_{NAMES[x.dtype]}", x, grad, made, x.numel())
    return made


# ---------------------------------------------------------------------------------------- shared


def takes(x: Tensor) -> bool:
    """Whether the kernels are for x (..., C), once it is in the precision of products."""
    return not torch.compiler.is_compiling() and is_plain(x) and x.shape[-1] % MULTIPLE == 0 and runs("gelu", x)


def _pair(x: Tensor) -> str:
    """How the kernels' names end that read x and write in the precision of products, or the other way round."""
    return f"{NAMES.get(x.dtype)}_{NAMES.get(compute_dtype(x))}"
