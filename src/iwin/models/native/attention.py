"""The compiled attention as PyTorch operators: with gradients, and inside `torch.compile`."""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iwin.models.native.common import NAMES, runs
from iwin.native import library

HEAD_DIM = 32

SOURCE = Path(__file__).with_suffix(".cpp")


def takes(x: Tensor, heads: int) -> bool:
    """Whether `interleaved_attention` can run on a projection of x (..., C), by its device, precision and head size."""
    return x.shape[-1] == heads * HEAD_DIM and runs(SOURCE, x)


def interleaved_attention(qkv: Tensor, counts: tuple[int, int], *, heads: int, scale: float) -> Tensor:
    """Multi-head self-attention within interleaved windows, in image order.

    Args:
        qkv: (B, T, H, W, 3 C), queries, keys and values; `takes` accepts it.
        counts: windows (I, J) along rows and columns, which H and W divide by; window (i, j) holds the rows r with
            r mod I = i and the columns c with c mod J = j, over all frames.
        heads: attention heads of `HEAD_DIM` channels.
        scale: scale of the products, above 0.

    Returns:
        (B, T, H, W, C).
    """
    return _forward(qkv, list(counts), heads, scale)[0]


@torch.library.custom_op("iwin::native_attention", mutates_args=(), device_types="cpu")
def _forward(qkv: Tensor, counts: Sequence[int], heads: int, scale: float) -> tuple[Tensor, Tensor]:
    qkv = qkv.contiguous()
    out, lse = _empty(qkv, counts, heads, scale)
    _call("forward", qkv.dtype, [qkv, out, lse], _shape(qkv, counts, heads), scale)
    return out, lse


@_forward.register_fake
def _empty(qkv: Tensor, counts: Sequence[int], heads: int, _scale: float) -> tuple[Tensor, Tensor]:
    B, T, H, W, channels = qkv.shape
    windows = counts[0] * counts[1]
    return qkv.new_empty(B, T, H, W, channels // 3), qkv.new_empty(
        B * windows, heads, T * H * W // windows, dtype=torch.float32
    )


@torch.library.custom_op("iwin::native_attention_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad: Tensor, qkv: Tensor, out: Tensor, lse: Tensor, counts: Sequence[int], heads: int, scale: float
) -> Tensor:
    grad, qkv = grad.contiguous(), qkv.contiguous()
    result = torch.empty_like(qkv)
    _call("backward", qkv.dtype, [qkv, out, lse, grad, result], _shape(qkv, counts, heads), scale)
    return result


@_backward.register_fake
def _(
    _grad: Tensor, qkv: Tensor, _out: Tensor, _lse: Tensor, _counts: Sequence[int], _heads: int, _scale: float
) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Sequence[int], int, float], output: tuple[Tensor, Tensor]) -> None:
    qkv, *ctx.settings = inputs
    ctx.save_for_backward(qkv, *output)


def _differentiate(ctx: Any, grad: Tensor, _grad_lse: Tensor | None) -> tuple[Tensor, None, None, None]:
    return _backward(grad, *ctx.saved_tensors, *ctx.settings), None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


def _shape(qkv: Tensor, counts: Sequence[int], heads: int) -> "ctypes.Array[ctypes.c_long]":
    return (ctypes.c_long * 7)(*qkv.shape[:4], heads, *counts)


def _call(
    name: str, dtype: torch.dtype, tensors: Sequence[Tensor], shape: "ctypes.Array[ctypes.c_long]", scale: float
) -> None:
    kernel: Callable[..., None] = getattr(library(SOURCE), f"{name}_{NAMES[dtype]}")
    kernel(*(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors), shape, ctypes.c_float(scale))
