"""The way between stages in one call, forward and backward: a norm, and a convolution as a matrix product.

oneDNN's convolution turns weights around at each call, and takes a map that has been normalised and filled up before.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from iwin.models.native.common import MULTIPLE, NAMES, call, fit, multiplies, numbers_of, pointers_to, readable, reads
from iwin.models.native.tokens import fits
from iwin.models.surroundings import compute_dtype, is_watched


def takes(x: Tensor, norm: nn.LayerNorm, conv: nn.Module) -> bool:
    """Whether `apply` does to x (B, T, H, W, C) what these layers do, and nobody looks at their calls."""
    if type(conv) is not nn.Conv2d or is_watched(norm, conv) or x.ndim != 5 or not x.numel() or not multiplies(x):
        return False
    if not reads(f"downsample_{_kernel(x, conv.weight)}", x):
        return False
    if (conv.stride, conv.padding, conv.dilation, conv.padding_mode) != ((2, 2), (0, 0), (1, 1), "zeros"):
        return False
    ins, outs = x.shape[-1], len(conv.weight)
    if not fits(ins, norm) or not fit([conv.weight, conv.bias], [(outs, ins, 3, 3), (outs,)]):
        return False
    if ins % MULTIPLE or outs % MULTIPLE:
        return False
    return conv.weight.dtype == x.dtype or torch.is_autocast_enabled("cpu")


def apply(x: Tensor, norm: nn.LayerNorm, conv: nn.Conv2d) -> Tensor:
    """The norm of a map, and its 3x3 convolution of stride 2.

    Args:
        x: (B, T, H, W, C), which `takes` accepts; beyond its lower and right end are zeros.
        norm: of its channels.
        conv: its weight (K, C, 3, 3) is read fastest from channels-last memory.

    Returns:
        (B, T, ceil(H / 2), ceil(W / 2), K), in the precision of products.
    """
    weight = conv.weight.permute(0, 2, 3, 1)
    given = (_kernel(x, weight), norm.eps, x, norm.weight, norm.bias, weight, conv.bias)
    if torch.is_grad_enabled():
        made: Tensor = _Downsample.apply(*given)
        return made
    return _downsample(*given)


class _Downsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: str, eps: float, x: Tensor, *weights: Any) -> Tensor:
        ctx.kernel, ctx.eps = kernel, eps
        ctx.save_for_backward(x, *weights)
        return _downsample(kernel, eps, x, *weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        sizes = _sizes(x, grad)
        of_x, given = torch.empty_like(x, memory_format=torch.contiguous_format), _given(*weights)
        shapes = [*(weight.shape for weight in weights[:3]), grad.shape[-1:]]
        gradients: list[Tensor | None] = [torch.empty(shape, dtype=torch.float32) for shape in shapes]
        layers = x.contiguous(), pointers_to(given), float(ctx.eps)
        call(f"downsample_backward_{ctx.kernel}", *layers, readable(grad), of_x, pointers_to(gradients), sizes)
        if weights[3] is None:
            gradients[3] = None
        return None, None, of_x, *gradients  # autograd turns them to the precision of what was given


def _downsample(kernel: str, eps: float, x: Tensor, *weights: Any) -> Tensor:
    given = _given(*weights)
    batch, time, height, width, _ = x.shape
    out = x.new_empty(batch, time, -(-height // 2), -(-width // 2), len(weights[2]), dtype=compute_dtype(x))
    call(f"downsample_{kernel}", x.contiguous(), pointers_to(given), float(eps), out, _sizes(x, out))
    return out


def _given(norm: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor | None]:
    """Weights as the kernels take them: the norm's and the bias in fp32, the convolution's as it is."""
    return [numbers_of(norm), numbers_of(norm_bias), weight.contiguous(), numbers_of(bias)]


def _sizes(x: Tensor, out: Tensor) -> ctypes.Array[ctypes.c_long]:
    return (ctypes.c_long * 5)(x.shape[:2].numel(), *x.shape[2:], out.shape[-1])


def _kernel(x: Tensor, weight: Tensor) -> str:
    """How the kernels' names end: by the precisions of maps, of products and of the convolution's weight."""
    return "_".join(str(NAMES.get(kind)) for kind in (x.dtype, compute_dtype(x), weight.dtype))
