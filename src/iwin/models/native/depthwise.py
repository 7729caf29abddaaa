"""The compiled depthwise convolution as a PyTorch operator: with gradients, and inside `torch.compile`."""

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from iwin.models.native.common import MULTIPLE, NAMES, call, fit, is_plain, numbers_of, runs
from iwin.models.surroundings import compute_dtype, is_watched


def takes(x: Tensor, layer: nn.Module) -> bool:
    """Whether `convolve` can do what a layer does to x (..., H, W, C), and nobody looks at the layer that it skips."""
    if type(layer) is not nn.Conv2d or is_watched(layer) or x.shape[-1] % MULTIPLE or not runs("convolve", x):
        return False
    if (layer.stride, layer.padding, layer.dilation, layer.padding_mode) != ((1, 1), (1, 1), (1, 1), "zeros"):
        return False
    weight, bias = layer.weight, layer.bias
    return weight.shape == (x.shape[-1], 1, 3, 3) and (bias is None or bias.shape == x.shape[-1:])


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, plus: Tensor) -> Tensor:
    """Depthwise 3x3 convolution with zeros around, and a sum.

    Args:
        x: (..., H, W, C); `takes` accepts it. Under autocast it is turned to its precision, as is `plus`.
        weight: (C, 1, 3, 3), of any precision.
        bias: (C,), or None for none.
        plus: like x; what is added to the result.

    Returns:
        Like x.
    """
    dtype = compute_dtype(x)
    C, given = x.shape[-1], (x.to(dtype), weight, bias, plus.to(dtype))
    eager = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if eager and is_plain(x, plus) and fit((weight, bias), [(C, 1, 3, 3), (C,)]):
        return _convolve(*given)  # the first call of an operator imports the compiler, which takes a second
    return _forward(*given)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, plus: Tensor | None) -> Tensor:
    x, plus = x.contiguous(), None if plus is None else plus.contiguous()
    out = torch.empty_like(x)
    taps, bias = _taps(weight), numbers_of(bias)
    call(f"convolve_{NAMES[x.dtype]}", x, taps, bias, plus, out, _frames(x))
    return out


_forward = torch.library.custom_op("iwin::native_depthwise", _convolve, mutates_args=(), device_types="cpu")


@_forward.register_fake
def _(x: Tensor, _weight: Tensor, _bias: Tensor | None, _plus: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("iwin::native_depthwise_gradients", mutates_args=(), device_types="cpu")
def _gradients(x: Tensor, grad: Tensor) -> Tensor:
    """Of the nine taps and of the bias, float32 (10, C)."""
    x, grad = x.contiguous(), grad.contiguous()
    result = x.new_empty(10, x.shape[-1], dtype=torch.float32)
    call(f"convolution_gradients_{NAMES[x.dtype]}", x, grad, result, _frames(x))
    return result


@_gradients.register_fake
def _(x: Tensor, _grad: Tensor) -> Tensor:
    return x.new_empty(10, x.shape[-1], dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Tensor], output: Tensor) -> None:  # noqa: ARG001
    x, weight, bias, _ = inputs
    ctx.save_for_backward(x, weight)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]:
    x, weight = ctx.saved_tensors
    of_x, of_weight, of_bias, _ = ctx.needs_input_grad
    grad_x = _forward(grad, weight.flip(2, 3), None, None) if of_x else None
    if not (of_weight or of_bias):
        return grad_x, None, None, grad
    sums = _gradients(x, grad)
    grad_weight = sums[:9].t().reshape(weight.shape).to(weight.dtype)
    return grad_x, grad_weight, sums[9].to(ctx.bias_dtype) if of_bias else None, grad


_forward.register_autograd(_differentiate, setup_context=_save)


def _taps(weight: Tensor) -> Tensor:
    """(C, 1, 3, 3) as float32 (9, C)."""
    return weight.float().flatten(1).t().contiguous()


def _frames(x: Tensor) -> ctypes.Array[ctypes.c_long]:
    """The sizes of maps (..., H, W, C), as the kernels take them."""
    return (ctypes.c_long * 4)(x.shape[:-3].numel(), *x.shape[-3:])
