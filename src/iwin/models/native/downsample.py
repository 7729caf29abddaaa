"""The convolution between stages as a matrix product, where a clip has fewer positions than a patch has numbers.

oneDNN's convolution turns weights around at each call, forward and backward, which then takes most of its time.
"""

from typing import Any

import torch
from torch import Tensor, nn

from iwin.models.native.common import is_plain, multiplies
from iwin.models.native.linear import in_precision, multiply, weight_gradient
from iwin.models.surroundings import is_watched


def takes(x: Tensor, layer: nn.Module) -> bool:
    """Whether `convolve` does to x (B, T, H, W, C) what a layer does, and pays, and nobody looks at the layer."""
    if type(layer) is not nn.Conv2d or is_watched(layer):
        return False
    if not multiplies(x) or not is_plain(x, layer.weight, layer.bias):
        return False
    _, time, height, width, channels = x.shape
    steps = (layer.stride, layer.padding, layer.dilation, layer.padding_mode)
    if layer.weight.shape[1:] != (channels, 3, 3) or steps != ((2, 2), (0, 0), (1, 1), "zeros"):
        return False
    positions = time * (height // 2) * (width // 2)  # of one clip, whose scores must not depend on those beside it
    return x.numel() > 0 and positions <= 9 * channels and height % 2 == width % 2 == 1


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution of stride 2.

    Args:
        x: (B, T, 2 h + 1, 2 w + 1, C); `takes` accepts it.
        weight: (K, C, 3, 3), fastest in channels-last memory.
        bias: (K,), or None.

    Returns:
        (B, T, h, w, K).
    """
    if torch.is_grad_enabled():
        made: Tensor = _Convolution.apply(x, weight, bias)
        return made
    return _convolve(*in_precision(x, weight, bias))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.dtypes = [None if given is None else given.dtype for given in (x, weight, bias)]
        x, weight, bias = in_precision(x, weight, bias)
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        of_x = _scatter(multiply(grad, _matrix(weight).t())) if needs_x else None
        of_weight = None
        if needs_weight:
            of_weight = weight_gradient(_patches(x), grad).unflatten(1, (3, 3, -1)).permute(0, 3, 1, 2)
        of_bias = grad.flatten(0, -2).sum(0) if needs_bias else None
        gradients = (of_x, of_weight, of_bias)
        return tuple(None if of is None else of.to(kind) for of, kind in zip(gradients, ctx.dtypes, strict=True))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return multiply(_patches(x), _matrix(weight), bias)


def _matrix(weight: Tensor) -> Tensor:
    """A weight (K, C, 3, 3) as (K, 9 C)."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _patches(x: Tensor) -> Tensor:
    """What the convolution reads at each position of its result: (B, T, h, w, 9 C)."""
    return x.unfold(2, 3, 2).unfold(3, 3, 2).permute(0, 1, 2, 3, 5, 6, 4).flatten(4)


def _scatter(patches: Tensor) -> Tensor:
    """The sum (B, T, 2 h + 1, 2 w + 1, C) of patches (B, T, h, w, 9 C) at their places, in float32."""
    batch, time, height, width, _ = patches.shape
    patches = patches.unflatten(4, (3, 3, -1))
    x = patches.new_zeros((batch, time, height + 1, 2, width + 1, 2, patches.shape[-1]), dtype=torch.float32)
    for row in range(3):
        for column in range(3):
            down, right = row // 2, column // 2
            places = x[:, :, down : down + height, row % 2, right : right + width, column % 2]
            places += patches[:, :, :, :, row, column]
    return x.flatten(4, 5).flatten(2, 3)[:, :, :-1, :-1]
