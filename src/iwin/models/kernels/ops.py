"""The Triton kernels as an operator of PyTorch: with gradients, and inside `torch.compile` and `torch.export`.

`iwin::window_attention` is opaque to both, so they keep one graph.
"""

import importlib.util
import math
import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    if x.device.type != DEVICE or not _runs_on(x.device):
        return False
    dtype = torch.get_autocast_dtype(DEVICE) if torch.is_autocast_enabled(DEVICE) else x.dtype
    return dtype in DTYPES and x.shape[-1] // heads in HEAD_DIMS and 3 * math.prod(x.shape[1:]) < 2**31


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _runs_on(device: torch.device) -> bool:
    if not HAS_TRITON or device.type == "cpu":
        return HAS_TRITON
    return torch.cuda.get_device_capability(device) >= (8, 0) and can_compile()


def can_compile() -> bool:
    """Whether Triton finds what it builds a kernel's launcher with: a C compiler and Python's headers."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return compiler is not None and Path(sysconfig.get_paths()["include"], "Python.h").is_file()


def interleaved_attention(qkv: Tensor, counts: tuple[int, int], *, heads: int, scale: float) -> Tensor:
    """Multi-head self-attention within interleaved windows, in image order.

    Args:
        qkv: (B, T, H, W, 3C), queries, keys and values, each head by head; `takes` accepts it.
        counts: windows (I, J) along rows and columns, which H and W divide by; window (i, j) holds the rows r with
            r mod I = i and the columns c with c mod J = j, over all frames.
        heads: attention heads.
        scale: scale of the products, above 0.

    Returns:
        (B, T, H, W, C), the heads side by side. It can be differentiated once.
    """
    return _forward(qkv, counts, heads, scale)[0]


@torch.library.custom_op("iwin::window_attention", mutates_args=(), device_types=DEVICE)
def _forward(qkv: Tensor, counts: Sequence[int], heads: int, scale: float) -> tuple[Tensor, Tensor]:
    from iwin.models.kernels import window_attention

    return window_attention.forward(qkv, counts, heads, scale)


@_forward.register_fake
def _(qkv: Tensor, counts: Sequence[int], heads: int, _scale: float) -> tuple[Tensor, Tensor]:
    B, T, H, W, C3 = qkv.shape
    I, J = counts
    log_sum = qkv.new_empty(B * I * J * heads, T * (H // I) * (W // J), dtype=torch.float32)
    return qkv.new_empty(B, T, H, W, C3 // 3), log_sum


@torch.library.custom_op("iwin::window_attention_backward", mutates_args=(), device_types=DEVICE)
def _backward(
    grad: Tensor, qkv: Tensor, out: Tensor, log_sum: Tensor, counts: Sequence[int], heads: int, scale: float
) -> Tensor:
    from iwin.models.kernels import window_attention

    return window_attention.backward(grad, qkv, out, log_sum, counts, heads, scale)


@_backward.register_fake
def _(_grad: Tensor, qkv: Tensor, *_: Any) -> Tensor:
    return qkv.new_empty(qkv.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, *ctx.settings = inputs
    ctx.save_for_backward(qkv, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor, None, None, None]:
    return _backward(grad, *ctx.saved_tensors, *ctx.settings), None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)
