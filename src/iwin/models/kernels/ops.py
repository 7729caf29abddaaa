"""The Triton kernels as operators of PyTorch: with gradients where they have some, and inside `torch.compile`.

The compiler does not look into them, and so keeps one graph.
"""

import functools
import importlib.util
import math
import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iwin.models.surroundings import compute_dtype, constant_in_graphs, needs_pytorch
from iwin.models.windows import Windows, beyond_map

HAS_TRITON = importlib.util.find_spec("triton") is not None
HEAD_DIMS = (16, 32, 64)
# Float32 stays with PyTorch: Triton's full float32 products spill registers in all but small blocks.
DTYPES = (torch.float16, torch.bfloat16)
# Triton's interpreter runs kernels on the CPU, slowly: a way to test them.
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


def takes(x: Tensor, heads: int) -> bool:
    """Whether `interleaved_attention` is for the projection of a map x (B, T, H, W, C).

    It takes float16 and bfloat16 (autocast counted) with heads of 16, 32 or 64 channels, on GPUs that Triton supports,
    up to 2^31 elements a sample, where there is a C compiler. Exported programs do without it, so that they run
    anywhere.
    """
    if needs_pytorch() or x.device.type != DEVICE or not _runs_on(x.device):
        return False
    fits = x.shape[-1] // heads in HEAD_DIMS and 3 * math.prod(x.shape[1:]) < 2**31
    return fits and compute_dtype(x) in DTYPES and x.numel() > 0


@constant_in_graphs
def _runs_on(device: torch.device) -> bool:
    return _has_kernels(device)


@functools.cache  # every layer asks, and looking for a compiler takes longer than launching a kernel
def _has_kernels(device: torch.device) -> bool:
    if not HAS_TRITON or device.type == "cpu":
        return HAS_TRITON
    is_nvidia = torch.version.hip is None
    return is_nvidia and torch.cuda.get_device_capability(device) >= (8, 0) and can_compile()


def _fit(x: Tensor, parameters: Sequence[Tensor | None], sizes: Sequence[torch.Size]) -> bool:
    """Whether all parameters are there, of these sizes, and where x is."""
    return all(
        parameter is not None and parameter.shape == size and parameter.device == x.device
        for parameter, size in zip(parameters, sizes, strict=True)
    )


def can_compile() -> bool:
    """Whether Triton finds what it builds a kernel's launcher with: a C compiler and Python's headers."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return compiler is not None and Path(sysconfig.get_paths()["include"], "Python.h").is_file()


def interleaved_attention(
    qkv: Tensor, windows: Windows, *, heads: int, scale: float, fill: Tensor | None = None
) -> Tensor:
    """Multi-head self-attention within interleaved windows, in image order.

    Args:
        qkv: (B, T, H, W, 3C), queries, keys and values, each head by head; `takes` accepts it.
        windows: the windows of the map.
        heads: attention heads.
        scale: scale of the products, above 0.
        fill: (3C,), what stands at the positions of windows that are beyond the map, whose keys and values take part;
            None for zeros.

    Returns:
        (B, T, H, W, C), the heads side by side. It can be differentiated once.
    """
    return _forward(qkv, beyond_map(qkv, windows, fill), list(windows), heads, scale)[0]


@torch.library.custom_op("iwin::window_attention", mutates_args=(), device_types=DEVICE)
def _forward(qkv: Tensor, fill: Tensor, windows: Sequence[int], heads: int, scale: float) -> tuple[Tensor, Tensor]:
    from iwin.models.kernels import window_attention

    return window_attention.forward(qkv, fill, Windows(*windows), heads, scale)


@_forward.register_fake
def _(qkv: Tensor, _fill: Tensor, windows: Sequence[int], heads: int, _scale: float) -> tuple[Tensor, Tensor]:
    B, T, H, W, C3 = qkv.shape
    down, across, *_ = windows
    tokens = Windows(*windows).tokens(T, H, W)
    log_sum = qkv.new_empty(B * down * across * heads, tokens, dtype=torch.float32)
    return qkv.new_empty(B, T, H, W, C3 // 3), log_sum


@torch.library.custom_op("iwin::window_attention_backward", mutates_args=(), device_types=DEVICE)
def _backward(
    grad: Tensor,
    qkv: Tensor,
    fill: Tensor,
    out: Tensor,
    log_sum: Tensor,
    windows: Sequence[int],
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    from iwin.models.kernels import window_attention

    return window_attention.backward(grad, qkv, fill, out, log_sum, Windows(*windows), heads, scale)


@_backward.register_fake
def _(_grad: Tensor, qkv: Tensor, fill: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return qkv.new_empty(qkv.shape), fill.new_empty(fill.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, fill, *ctx.settings = inputs
    ctx.save_for_backward(qkv, fill, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    return *_backward(grad, *ctx.saved_tensors, *ctx.settings), None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


# ---------------------------------------------------------------------------------------- LayerNorm


def norms(x: Tensor, norm: nn.LayerNorm) -> bool:
    """Whether `layer_norm` does what a layer does to x (..., C): on GPUs, where nothing else would fuse it.

    `torch.compile` joins a LayerNorm with what stands around it, and does it better.
    """
    if needs_pytorch() or torch.compiler.is_compiling() or norm.normalized_shape != x.shape[-1:]:
        return False
    if not _fit(x, [norm.weight, norm.bias], [x.shape[-1:], x.shape[-1:]]):
        return False
    return x.device.type == DEVICE and x.dtype in (torch.float32, *DTYPES) and x.numel() > 0 and _runs_on(x.device)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the channels of x (..., C), in float32; under autocast the result has autocast's precision.

    PyTorch's own gives float32 there; what reads it turns it to autocast's precision.
    """
    return _layer_norm(x, weight, bias, eps, compute_dtype(x))[0]


@torch.library.custom_op("iwin::layer_norm", mutates_args=(), device_types=DEVICE)
def _layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    from iwin.models.kernels import layer_norm

    return layer_norm.forward(x, weight, bias, eps, dtype)


@_layer_norm.register_fake
def _(x: Tensor, _weight: Tensor, _bias: Tensor, _eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    rows = x.numel() // x.shape[-1]
    return (
        x.new_empty(x.shape, dtype=dtype),
        x.new_empty(rows, dtype=torch.float32),
        x.new_empty(rows, dtype=torch.float32),
    )


@torch.library.custom_op("iwin::layer_norm_backward", mutates_args=(), device_types=DEVICE)
def _layer_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    from iwin.models.kernels import layer_norm

    return layer_norm.backward(grad, x, weight, mean, scale)


@_layer_norm_backward.register_fake
def _(_grad: Tensor, x: Tensor, weight: Tensor, _mean: Tensor, _scale: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(2, len(weight))


def _keep_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, *_ = inputs
    ctx.save_for_backward(x, weight, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _differentiate_norm(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    d_x, of_weights = _layer_norm_backward(grad, *ctx.saved_tensors)
    return d_x, of_weights[0], of_weights[1], None, None


_layer_norm.register_autograd(_differentiate_norm, setup_context=_keep_norm)


# ---------------------------------------------------------------------------------------- linear layer and GELU

MAX_INPUT = 256
"""Channels up to which a linear layer and its GELU are one kernel: beyond, products dominate, and cuBLAS is faster."""


def joins_gelu(x: Tensor, linear: nn.Linear) -> bool:
    """Whether `linear_gelu` is for a layer of x (..., C): without gradients, in half precision, with few channels.

    With gradients the GELU's input is needed again, so that it is written anyway.
    """
    if needs_pytorch() or torch.is_grad_enabled() or x.device.type != DEVICE or not _runs_on(x.device):
        return False
    outs = linear.weight.shape[:1]
    if not _fit(x, [linear.weight, linear.bias], [outs + x.shape[-1:], outs]):
        return False
    return compute_dtype(x) in DTYPES and x.shape[-1] % 32 == 0 and 0 < x.shape[-1] <= MAX_INPUT and x.numel() > 0


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU (erf form) of a linear layer: x (..., C), weight (N, C), bias (N,) -> (..., N)."""
    dtype = compute_dtype(x)
    return _linear_gelu(x.to(dtype), weight.to(dtype), bias.to(dtype))


@torch.library.custom_op("iwin::linear_gelu", mutates_args=(), device_types=DEVICE)
def _linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    from iwin.models.kernels import linear_gelu

    return linear_gelu.linear_gelu(x, weight, bias)


@_linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, _bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))
