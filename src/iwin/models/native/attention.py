"""The compiled attention as PyTorch operators: with gradients, and inside `torch.compile`."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from iwin.models.native.common import NAMES, call, pointer_to, runs
from iwin.models.windows import Windows, beyond_map

HEAD_DIM = 32
"""Channels of a head at most."""


def takes(x: Tensor, heads: int) -> bool:
    """Whether `interleaved_attention` can run on a projection of x (..., C), by its device, precision and head size."""
    return has_heads(x.shape[-1], heads) and runs("attend", x)


def has_heads(channels: int, heads: int) -> bool:
    """Whether so many channels are those of so many heads, none with too many."""
    return 0 < channels <= heads * HEAD_DIM and channels % heads == 0


def interleaved_attention(
    qkv: Tensor, windows: Windows, *, heads: int, scale: float, fill: Tensor | None = None
) -> Tensor:
    """Multi-head self-attention within interleaved windows, in image order.

    Args:
        qkv: (B, T, H, W, 3 C), queries, keys and values; `takes` accepts it.
        windows: the windows of the map.
        heads: attention heads, of `HEAD_DIM` channels at most.
        scale: scale of the products, above 0.
        fill: (3 C,), what stands at the positions of windows that are beyond the map, whose keys and values take part;
            None for zeros.

    Returns:
        (B, T, H, W, C).
    """
    return _forward(qkv, beyond_map(qkv, windows, fill), list(windows), heads, scale)[0]


def softmax_of(sizes: Sequence[int], windows: Windows, heads: int) -> tuple[int, ...]:
    """Shape of what a forward pass on a map of sizes (B, T, H, W) leaves to the backward pass: two numbers a query."""
    batch, steps, height, width = sizes
    return batch * windows.down * windows.across, heads, 2, windows.tokens(steps, height, width)


@torch.library.custom_op("iwin::native_attention", mutates_args=(), device_types="cpu")
def _forward(qkv: Tensor, fill: Tensor, windows: Sequence[int], heads: int, scale: float) -> tuple[Tensor, Tensor]:
    qkv, fill = qkv.contiguous(), fill.contiguous()
    out, softmax = _empty(qkv, fill, windows, heads, scale)
    _call("attend", [qkv, fill, out, softmax], [], windows, heads, scale)
    return out, softmax


@_forward.register_fake
def _empty(qkv: Tensor, _fill: Tensor, windows: Sequence[int], heads: int, _scale: float) -> tuple[Tensor, Tensor]:
    B, T, H, W, channels = qkv.shape
    softmax = softmax_of((B, T, H, W), Windows(*windows), heads)
    return qkv.new_empty(B, T, H, W, channels // 3), qkv.new_empty(softmax, dtype=torch.float32)


@torch.library.custom_op("iwin::native_attention_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad: Tensor,
    qkv: Tensor,
    fill: Tensor,
    out: Tensor,
    softmax: Tensor,
    windows: Sequence[int],
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    grad, qkv, fill = grad.contiguous(), qkv.contiguous(), fill.contiguous()
    of_qkv = torch.empty_like(qkv)
    of_windows = qkv.new_empty(len(softmax), heads, 2, qkv.shape[-1] // (3 * heads), dtype=torch.float32)
    _call("attend_backward", [qkv, fill, out, softmax], [grad, of_qkv, of_windows], windows, heads, scale)
    if not len(fill):
        return of_qkv, fill.clone()
    of_keys_and_values = of_windows.sum(0).transpose(0, 1).flatten()
    return of_qkv, torch.cat([of_keys_and_values.new_zeros(qkv.shape[-1] // 3), of_keys_and_values]).to(fill.dtype)


@_backward.register_fake
def _(_grad: Tensor, qkv: Tensor, fill: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return qkv.new_empty(qkv.shape), fill.new_empty(fill.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, fill, *ctx.settings = inputs
    ctx.save_for_backward(qkv, fill, *output)


def _differentiate(ctx: Any, grad: Tensor, _grad_softmax: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_backward(grad, *ctx.saved_tensors, *ctx.settings), None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


def _call(
    name: str, maps: Sequence[Tensor], gradients: Sequence[Tensor], windows: Sequence[int], heads: int, scale: float
) -> None:
    """Run a kernel on `maps` (qkv, fill, out, softmax) and what else it takes, all contiguous."""
    qkv = maps[0]
    pointers = (ctypes.c_void_p * 4)(*map(pointer_to, maps))
    sizes = (ctypes.c_long * 10)(*qkv.shape[:4], heads, qkv.shape[-1] // (3 * heads), *windows)
    call(f"{name}_{NAMES[qkv.dtype]}", pointers, *gradients, sizes, float(scale))
