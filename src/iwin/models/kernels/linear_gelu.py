"""A Triton kernel: a linear layer and the GELU after it, whose input is never written to memory.

The hidden layer of an MLP is four times as wide as its input. At the 96 and 192 channels of the first stages the time
of its first half is that of writing the hidden layer, reading it for the GELU, and writing it again.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from iwin.models.kernels.product import INTERPRETED, dot


@triton.jit
def _gelu(x):
    """GELU in the form with erf, to 2e-7 |x|: far below what half precision can tell apart.

    It is max(x, 0) - |x| erfc(|x| / sqrt 2) / 2, with erfc by Abramowitz and Stegun, 7.1.26, in half the instructions
    of an exact erf. 1.4427 turns exp to exp2, 0.7071 is the root of 1/2.
    """
    size = tl.abs(x)
    root = tl.rsqrt(1.0 + 0.3275911 * 0.7071067811865476 * size)
    t = root * root  # a division takes ten instructions
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    complement = series * tl.exp2(x * x * (-0.5 * 1.4426950408889634))
    return tl.maximum(x, 0.0) - 0.5 * size * complement


@triton.jit
def _linear_gelu_kernel(
    x, weight, bias, out, rows, outs, C,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A block of tokens and hidden channels; C is a multiple of BLOCK_C. Blocks of the same tokens are neighbours."""
    blocks = tl.cdiv(outs, BLOCK_N)
    row = (tl.program_id(0) // blocks).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    channel = tl.arange(0, BLOCK_C)
    inside, known = row < rows, column < outs
    x_place = x + row[:, None] * C + channel[None, :]
    w_place = weight + column[None, :] * C + channel[:, None]
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for _ in range(0, C, BLOCK_C):
        a = tl.load(x_place, mask=inside[:, None], other=0.0)
        b = tl.load(w_place, mask=known[None, :], other=0.0)
        total += dot(a, b)
        x_place += BLOCK_C
        w_place += BLOCK_C
    total += tl.load(bias + column, mask=known, other=0.0).to(tl.float32)[None, :]
    result = _gelu(total).to(out.dtype.element_ty)
    tl.store(out + row[:, None] * outs + column[None, :], result, mask=inside[:, None] & known[None, :])


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU of a linear layer, x (..., C), weight (N, C), bias (N,) -> (..., N), all of one precision; C in 32s."""
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    N, C = weight.shape
    rows = x.numel() // C
    out = x.new_empty(*x.shape[:-1], N)
    block = (32, 32) if INTERPRETED.value else (64, 128)  # small, so that small tests fill several
    with torch.cuda.device_of(x):
        _linear_gelu_kernel[triton.cdiv(rows, block[0]) * triton.cdiv(N, block[1]),](
            x, weight, bias, out, rows, N, C,
            BLOCK_M=block[0], BLOCK_N=block[1], BLOCK_C=32, num_warps=4, num_stages=3,
        )  # fmt: skip
    return out
