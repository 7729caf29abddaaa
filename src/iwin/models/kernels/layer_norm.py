"""Triton kernels: LayerNorm over the channels of channels-last maps, written in the precision that reads it.

PyTorch's own kernel gives a row to a block of threads, which at the 96 channels of a first stage have next to nothing
to do, and under autocast writes float32, which each layer that reads it then turns to half precision. Here a program
takes several rows at once.

A row is the C channels of one token. The backward pass adds up the gradients of weight and bias over the rows of a
program; programs write their sums to places of their own, so that results do not depend on their order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 2048
"""Numbers that a program holds at once."""

_PROGRAMS = 1024
"""Programs of the backward pass, at most: each writes a sum of C numbers twice."""


@triton.jit
def _forward_kernel(
    x, weight, bias, out, mean, scale, rows, C, eps, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS).to(tl.int64)
    channel = tl.arange(0, BLOCK_C)
    known = channel < C
    inside = row < rows
    mask = inside[:, None] & known[None, :]
    offsets = row[:, None] * C + channel[None, :]
    values = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32)
    center = tl.sum(values, 1) / C
    values = tl.where(known[None, :], values - center[:, None], 0.0)
    factor = tl.rsqrt(tl.sum(values * values, 1) / C + eps)
    w = tl.load(weight + channel, mask=known, other=0.0).to(tl.float32)
    b = tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
    result = values * factor[:, None] * w[None, :] + b[None, :]
    tl.store(out + offsets, result.to(out.dtype.element_ty), mask=mask)
    tl.store(mean + row, center, mask=inside)
    tl.store(scale + row, factor, mask=inside)


@triton.jit
def _backward_kernel(
    grad, x, weight, mean, scale, grad_x, sums, rows, C, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradient of x, and this program's share of those of weight and bias: `sums` (programs, 2, C)."""
    channel = tl.arange(0, BLOCK_C)
    known = channel < C
    w = tl.load(weight + channel, mask=known, other=0.0).to(tl.float32)
    d_weight = tl.zeros([ROWS, BLOCK_C], tl.float32)
    d_bias = tl.zeros([ROWS, BLOCK_C], tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row = block * ROWS + tl.arange(0, ROWS).to(tl.int64)
        inside = row < rows
        mask = inside[:, None] & known[None, :]
        offsets = row[:, None] * C + channel[None, :]
        g = tl.load(grad + offsets, mask=mask, other=0.0).to(tl.float32)
        values = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32)
        factor = tl.load(scale + row, mask=inside, other=0.0)
        normal = (values - tl.load(mean + row, mask=inside, other=0.0)[:, None]) * factor[:, None]
        d_weight += g * normal
        d_bias += g
        g *= w[None, :]
        along = tl.sum(g * normal, 1) / C
        d_values = (g - tl.sum(g, 1)[:, None] / C - normal * along[:, None]) * factor[:, None]
        tl.store(grad_x + offsets, d_values.to(grad_x.dtype.element_ty), mask=mask)
    place = sums + tl.program_id(0) * 2 * C + channel
    tl.store(place, tl.sum(d_weight, 0), mask=known)
    tl.store(place + C, tl.sum(d_bias, 0), mask=known)


def _sizes(C: int) -> tuple[int, int]:
    """Rows and channels of a program's tile."""
    block = triton.next_power_of_2(C)
    return max(1, _TILE // block), block


def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise x (..., C) over its channels.

    Returns:
        The result like x in `dtype`; mean and reciprocal deviation (rows,) of each row, which the backward pass needs.
    """
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    C = x.shape[-1]
    rows = x.numel() // C
    out = torch.empty_like(x, dtype=dtype)
    mean, scale = (x.new_empty(rows, dtype=torch.float32) for _ in range(2))
    ROWS, BLOCK_C = _sizes(C)
    with torch.cuda.device_of(x):
        _forward_kernel[triton.cdiv(rows, ROWS),](
            x, weight, bias, out, mean, scale, rows, C, eps, ROWS=ROWS, BLOCK_C=BLOCK_C, num_warps=4
        )
    return out, mean, scale


def backward(grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x, like x, and of weight and bias, (2, C), by the result's and what `forward` took and gave."""
    grad, x, weight = grad.contiguous(), x.contiguous(), weight.contiguous()
    C = x.shape[-1]
    rows = x.numel() // C
    ROWS, BLOCK_C = _sizes(C)
    grad_x = torch.empty_like(x)
    programs = min(_PROGRAMS, triton.cdiv(rows, ROWS))
    sums = x.new_empty(programs, 2, C, dtype=torch.float32)
    with torch.cuda.device_of(x):
        _backward_kernel[programs,](
            grad, x, weight, mean, scale, grad_x, sums, rows, C, ROWS=ROWS, BLOCK_C=BLOCK_C, num_warps=4
        )
    return grad_x, sums.sum(0).to(weight.dtype)
