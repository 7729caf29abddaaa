"""The convolution between stages as a matrix product, where a clip has fewer positions than a patch has numbers.

oneDNN's convolution turns weights around at each call, forward and backward, which then takes most of its time.
"""

from typing import Any

import torch
from torch import Tensor, nn

from iwin.models.native.common import is_plain, multiplies
from iwin.models.native.linear import linear
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
    patches: Tensor = _Patches.apply(x)
    return linear(patches, weight.permute(0, 2, 3, 1).flatten(1), bias)


class _Patches(torch.autograd.Function):
    """What the convolution reads at each position of its result: (B, T, h, w, 9 C)."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.unfold(2, 3, 2).unfold(3, 3, 2).permute(0, 1, 2, 3, 5, 6, 4).flatten(4)

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        batch, time, height, width, _ = grad.shape
        grad = grad.unflatten(4, (3, 3, -1))
        of_x = grad.new_zeros((batch, time, height + 1, 2, width + 1, 2, grad.shape[-1]), dtype=torch.float32)
        for row in range(3):
            for column in range(3):
                down, right = row // 2, column // 2
                places = of_x[:, :, down : down + height, row % 2, right : right + width, column % 2]
                places += grad[:, :, :, :, row, column]
        return of_x.flatten(4, 5).flatten(2, 3)[:, :, :-1, :-1]
