"""Triton kernels: attention within interleaved windows, reading and writing maps in image order.

Window (i, j) of a map holds the rows r with r mod I = i and the columns c with c mod J = j, over all frames. The
kernels find its tokens by strides, so that neither q, k, v nor the result are ever gathered into windows in memory.

Method: attention in blocks with a running softmax (FlashAttention, arXiv 2205.14135 and 2307.08691). The forward pass
keeps one number a query, the logarithm of its softmax's sum; the backward pass recomputes the weights from it, in one
kernel for the queries' gradients and one for the keys' and values'. Nothing is added up by atomics: results do not
depend on the order in which programs run.

Windows may reach beyond the map. All positions there have the same key and value: they are one key of that many times
the weight, with which the softmax begins. Nobody reads what they would find as queries.

`iwin.models.kernels.tiles` says what a program works at. Logarithms are to base 2, since the hardware has exp2.
Importing this file needs Triton: `iwin.models.kernels.ops` does so when a kernel first runs.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from iwin.models.kernels import tiles
from iwin.models.kernels.product import INTERPRETED, dot
from iwin.models.windows import Windows

LOG2_E = tl.constexpr(1.4426950408889634)
HIGHEST_TOTAL = tl.constexpr(2.0**32)
"""Sum of the weights up to which those relative to the first block's highest score are taken."""

# ---------------------------------------------------------------------------------------- what the tuner tries


def _choices(
    *choices: tuple[int, int, int, int], steady: Sequence[tuple[int, int, int, int]] = ()
) -> list[triton.Config]:
    """What the tuner tries: (queries a block, keys a block, warps, pipeline stages), `steady` ones with STEADY.

    The interpreter is not timed: it runs one choice, blocks so small that small tests fill several.
    """
    if INTERPRETED.value:
        small = (32, 16, 4, 1)
        choices, steady = ((), (small,)) if steady else ((small,), ())
    return [
        triton.Config({"BLOCK_M": queries, "BLOCK_N": keys} | constants, num_warps=warps, num_stages=stages)
        for constants, some in (({}, choices), ({"STEADY": True}, steady))
        for queries, keys, warps, stages in some
    ]


def _fitting(configs: list[triton.Config], arguments: dict[str, Any], **_: Any) -> list[triton.Config]:
    """Choices that fit the operands: full float32 products take so many registers that only small blocks fit."""
    if arguments["qkv"].dtype == torch.float32:
        return [triton.Config({"BLOCK_M": 16, "BLOCK_N": 32}, num_warps=4, num_stages=2)]
    return configs


# ---------------------------------------------------------------------------------------- forward


@triton.jit
def _attend(
    state, q, k_start, v_start, first, steps, sides, scale,
    TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr, EVEN: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr, MASKED: tl.constexpr, MOVES: tl.constexpr,
):  # fmt: skip
    """Let a block of queries attend to a block of keys.

    `state` is the score that weights are relative to, the sum of the weights (8 times, side by side) and the sum of the
    weighted values. Where it MOVES, that score is the highest one so far. A block that is MASKED reaches past the
    window's tokens.
    """
    top, total, acc = state
    token = first + tl.arange(0, BLOCK_N)
    offsets = tiles.offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM)
    inside = tiles.is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
    k = tiles.load(k_start + offsets, inside[:, None], MASKED)
    v = tiles.load(v_start + offsets, inside[:, None], MASKED)
    scores = dot(q, tl.trans(k))
    if MASKED:
        scores = tl.where(inside[None, :], scores, float("-inf"))
    if MOVES:
        new_top = tl.maximum(top, tl.max(scores, 1) * scale)
        shrink = tl.exp2(top - new_top)
        top = new_top
        total *= shrink[:, None]
        acc *= shrink[:, None]
    weights = tl.exp2(scores * scale - top[:, None]).to(v.dtype)
    ones = tl.full([BLOCK_N, 8], 1.0, tl.float32).to(v.dtype)  # adds up in a product: all other units are busy
    return top, total + dot(weights, ones), acc + dot(weights, v)


@triton.jit
def _attend_from(
    state, q, k_start, v_start, first, steps, sides, scale,
    TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr, EVEN: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr, MOVES: tl.constexpr, STAGES: tl.constexpr = None,
):  # fmt: skip
    """Let a block of queries attend to all blocks of keys from token `first` on."""
    WHOLE: tl.constexpr = (TOKENS - 1) // BLOCK_N * BLOCK_N
    LAST: tl.constexpr = tiles.last_size(TOKENS - WHOLE, BLOCK_N)
    for block in tl.range(first, WHOLE, BLOCK_N, num_stages=STAGES):
        state = _attend(
            state, q, k_start, v_start, block, steps, sides, scale,
            TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, BLOCK_N, MASKED=not EVEN, MOVES=MOVES,
        )  # fmt: skip
    return _attend(
        state, q, k_start, v_start, WHOLE, steps, sides, scale,
        TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, LAST, MASKED=TOKENS < WHOLE + LAST or not EVEN, MOVES=MOVES,
    )  # fmt: skip


@triton.autotune(
    configs=_choices(
        *((64, 64, 4, 3), (64, 64, 4, 4), (64, 32, 4, 4), (128, 32, 4, 4)),
        steady=((64, 64, 4, 2), (64, 64, 4, 3), (64, 128, 4, 2)),
    ),
    key=["TOKENS", "HEAD_DIM"],
    prune_configs_by={"early_config_prune": _fitting},
    cache_results=True,
)
@triton.jit
def _forward_kernel(
    qkv, fill, out, log_sum, heads, I, J, scale, extent, qkv_strides, out_strides,
    POSITIONS: tl.constexpr, TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr,
    EVEN: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    STEADY: tl.constexpr = False,
):  # fmt: skip
    """Attention. With STEADY, weights stay relative to the highest score of the first block of keys.

    That spares the maximum of every other block, and the sums' scaling by it: three tenths of the instructions. Where
    scores rise so far above it that weights could pass what numbers hold, the block is done again with one that moves.
    """
    first, sample, i, j, head, sequence = tiles.locate(BLOCK_M, TOKENS, heads, I, J)
    q_start, steps = tiles.enter(qkv, qkv_strides, sample, i, j, head, I, J, HEAD_DIM)
    k_start = q_start + heads * HEAD_DIM
    v_start = k_start + heads * HEAD_DIM
    scale *= LOG2_E

    token = first + tl.arange(0, BLOCK_M)
    sides = tiles.sides(extent, i, j, I, J)
    inside = tiles.is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
    q = tl.load(q_start + tiles.offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM), mask=inside[:, None], other=0.0)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M, 8], tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    if POSITIONS > TOKENS or not EVEN:
        count, k_beyond, v_beyond = tiles.beyond(fill, sides, head, heads, POSITIONS, FRAMES, HEAD_DIM)
        top = tl.where(count > 0, tl.sum(q.to(tl.float32) * k_beyond, 1) * scale, top)
        total += count
        acc += count * v_beyond
    state = (top, total, acc)
    if STEADY and TOKENS > BLOCK_N:
        begun = _attend(
            state, q, k_start, v_start, 0, steps, sides, scale,
            TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, BLOCK_N, MASKED=not EVEN, MOVES=True,
        )  # fmt: skip
        top, total, acc = _attend_from(
            begun, q, k_start, v_start, BLOCK_N, steps, sides, scale,
            TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, BLOCK_N, MOVES=False,
        )  # fmt: skip
        if tl.min((total < HIGHEST_TOTAL).to(tl.int32)) == 0:
            # In smaller blocks and without a pipeline, so that this takes no more registers than the loop before.
            SMALLER: tl.constexpr = BLOCK_N // 2 if BLOCK_N > 16 else BLOCK_N
            top, total, acc = _attend_from(
                state, q, k_start, v_start, 0, steps, sides, scale,
                TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, SMALLER, MOVES=True, STAGES=1,
            )  # fmt: skip
    else:
        top, total, acc = _attend_from(
            state, q, k_start, v_start, 0, steps, sides, scale,
            TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, BLOCK_N, MOVES=True,
        )  # fmt: skip

    total = tl.sum(total, 1) / 8
    tl.store(log_sum + sequence * TOKENS + token, top + tl.log2(total), mask=token < TOKENS)
    out_start, steps = tiles.enter(out, out_strides, sample, i, j, head, I, J, HEAD_DIM)
    result = (acc / total[:, None]).to(out.dtype.element_ty)
    tl.store(out_start + tiles.offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM), result, mask=inside[:, None])


# ---------------------------------------------------------------------------------------- backward


@triton.jit
def _query_gradient(
    dq, q, grad, log_sum, delta, k_start, v_start, first, steps, sides, scale,
    TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr, EVEN: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Add what a block of keys and values gives to the gradient of a block of queries."""
    token = first + tl.arange(0, BLOCK_N)
    offsets = tiles.offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM)
    inside = tiles.is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
    k = tiles.load(k_start + offsets, inside[:, None], MASKED)
    v = tiles.load(v_start + offsets, inside[:, None], MASKED)
    scores = dot(q, tl.trans(k))
    if MASKED:
        scores = tl.where(inside[None, :], scores, float("-inf"))
    weights = tl.exp2(scores * scale - log_sum[:, None])
    d_scores = weights * (dot(grad, tl.trans(v)) - delta[:, None])
    return dq + dot(d_scores.to(k.dtype), k)


@triton.autotune(
    configs=_choices((64, 64, 4, 3), (64, 32, 4, 4), (128, 32, 4, 3)),
    key=["TOKENS", "HEAD_DIM"],
    prune_configs_by={"early_config_prune": _fitting},
    cache_results=True,
)
@triton.jit
def _query_backward_kernel(
    qkv, fill, out, grad_out, grad_qkv, log_sum, delta, heads, I, J, scale,
    extent, qkv_strides, out_strides, grad_strides,
    POSITIONS: tl.constexpr, TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr,
    EVEN: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Gradient of q. Also `delta`, the sum of out * grad_out of each query, which the other kernel reads."""
    first, sample, i, j, head, sequence = tiles.locate(BLOCK_M, TOKENS, heads, I, J)
    q_start, steps = tiles.enter(qkv, qkv_strides, sample, i, j, head, I, J, HEAD_DIM)
    k_start = q_start + heads * HEAD_DIM
    v_start = k_start + heads * HEAD_DIM
    out_start, out_steps = tiles.enter(out, out_strides, sample, i, j, head, I, J, HEAD_DIM)
    grad_start, out_steps = tiles.enter(grad_out, out_strides, sample, i, j, head, I, J, HEAD_DIM)
    dq_start, dq_steps = tiles.enter(grad_qkv, grad_strides, sample, i, j, head, I, J, HEAD_DIM)

    token = first + tl.arange(0, BLOCK_M)
    sides = tiles.sides(extent, i, j, I, J)
    inside = tiles.is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
    q = tl.load(q_start + tiles.offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM), mask=inside[:, None], other=0.0)
    out_offsets = tiles.offsets(token, out_steps, FRAMES, COLUMNS, HEAD_DIM)
    attended = tl.load(out_start + out_offsets, mask=inside[:, None], other=0.0)
    grad = tl.load(grad_start + out_offsets, mask=inside[:, None], other=0.0)
    log_sum_block = tl.load(log_sum + sequence * TOKENS + token, mask=inside, other=0.0)
    delta_block = tl.sum(attended.to(tl.float32) * grad.to(tl.float32), 1)
    tl.store(delta + sequence * TOKENS + token, delta_block, mask=inside)

    dq = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    if POSITIONS > TOKENS or not EVEN:
        count, k_beyond, v_beyond = tiles.beyond(fill, sides, head, heads, POSITIONS, FRAMES, HEAD_DIM)
        score = tl.sum(q.to(tl.float32) * k_beyond, 1) * (scale * LOG2_E)
        weight = count * tl.exp2(tl.where(count > 0, score - log_sum_block, 0.0))
        dq += (weight * (tl.sum(grad.to(tl.float32) * v_beyond, 1) - delta_block))[:, None] * k_beyond
    WHOLE: tl.constexpr = (TOKENS - 1) // BLOCK_N * BLOCK_N
    LAST: tl.constexpr = tiles.last_size(TOKENS - WHOLE, BLOCK_N)
    for block in range(0, WHOLE, BLOCK_N):
        dq = _query_gradient(
            dq, q, grad, log_sum_block, delta_block, k_start, v_start, block, steps, sides, scale * LOG2_E,
            TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, BLOCK_N, MASKED=not EVEN,
        )  # fmt: skip
    dq = _query_gradient(
        dq, q, grad, log_sum_block, delta_block, k_start, v_start, WHOLE, steps, sides, scale * LOG2_E,
        TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, LAST, MASKED=TOKENS < WHOLE + LAST or not EVEN,
    )  # fmt: skip
    dq_offsets = tiles.offsets(token, dq_steps, FRAMES, COLUMNS, HEAD_DIM)
    tl.store(dq_start + dq_offsets, (dq * scale).to(grad_qkv.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _key_gradients(
    gradients, k, v, q_start, grad_start, log_sum, delta, first, steps, grad_steps, sides, scale,
    TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr, EVEN: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Add what a block of queries gives to the gradients of a block of keys and values.

    Scores stand transposed, (keys, queries). Queries past the window's tokens are zero and have zero gradients: they
    add nothing.
    """
    dk, dv = gradients
    token = first + tl.arange(0, BLOCK_M)
    inside = tiles.is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
    q = tiles.load(q_start + tiles.offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM), inside[:, None], MASKED)
    grad = tiles.load(grad_start + tiles.offsets(token, grad_steps, FRAMES, COLUMNS, HEAD_DIM), inside[:, None], MASKED)
    log_sum_block = tiles.load(log_sum + token, inside, MASKED)
    delta_block = tiles.load(delta + token, inside, MASKED)
    weights = tl.exp2(dot(k, tl.trans(q)) * scale - log_sum_block[None, :])
    d_scores = weights * (dot(v, tl.trans(grad)) - delta_block[None, :])
    return dk + dot(d_scores.to(q.dtype), q), dv + dot(weights.to(grad.dtype), grad)


@triton.autotune(
    configs=_choices((64, 64, 4, 3), (32, 64, 4, 4), (32, 128, 4, 3)),
    key=["TOKENS", "HEAD_DIM"],
    prune_configs_by={"early_config_prune": _fitting},
    cache_results=True,
)
@triton.jit
def _key_backward_kernel(
    qkv, grad_out, grad_qkv, log_sum, delta, heads, I, J, scale, extent, qkv_strides, out_strides, grad_strides,
    POSITIONS: tl.constexpr,  # noqa: ARG001 - all are launched alike
    TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr,
    EVEN: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Gradients of k and v, from queries alone: what is beyond the map asks nothing."""
    first, sample, i, j, head, sequence = tiles.locate(BLOCK_N, TOKENS, heads, I, J)
    q_start, steps = tiles.enter(qkv, qkv_strides, sample, i, j, head, I, J, HEAD_DIM)
    k_start = q_start + heads * HEAD_DIM
    v_start = k_start + heads * HEAD_DIM
    grad_start, grad_steps = tiles.enter(grad_out, out_strides, sample, i, j, head, I, J, HEAD_DIM)
    log_sum += sequence * TOKENS
    delta += sequence * TOKENS

    token = first + tl.arange(0, BLOCK_N)
    sides = tiles.sides(extent, i, j, I, J)
    inside = tiles.is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)[:, None]
    offsets = tiles.offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM)
    k = tl.load(k_start + offsets, mask=inside, other=0.0)
    v = tl.load(v_start + offsets, mask=inside, other=0.0)
    gradients = (tl.zeros([BLOCK_N, HEAD_DIM], tl.float32), tl.zeros([BLOCK_N, HEAD_DIM], tl.float32))
    WHOLE: tl.constexpr = (TOKENS - 1) // BLOCK_M * BLOCK_M
    LAST: tl.constexpr = tiles.last_size(TOKENS - WHOLE, BLOCK_M)
    for block in range(0, WHOLE, BLOCK_M):
        gradients = _key_gradients(
            gradients, k, v, q_start, grad_start, log_sum, delta, block, steps, grad_steps, sides, scale * LOG2_E,
            TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, BLOCK_M, MASKED=not EVEN,
        )  # fmt: skip
    dk, dv = _key_gradients(
        gradients, k, v, q_start, grad_start, log_sum, delta, WHOLE, steps, grad_steps, sides, scale * LOG2_E,
        TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, LAST, MASKED=TOKENS < WHOLE + LAST or not EVEN,
    )  # fmt: skip

    dq_start, steps = tiles.enter(grad_qkv, grad_strides, sample, i, j, head, I, J, HEAD_DIM)
    dk_start = dq_start + heads * HEAD_DIM
    dv_start = dk_start + heads * HEAD_DIM
    offsets = tiles.offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM)
    tl.store(dk_start + offsets, (dk * scale).to(grad_qkv.dtype.element_ty), mask=inside)
    tl.store(dv_start + offsets, dv.to(grad_qkv.dtype.element_ty), mask=inside)


@triton.jit
def _beyond_backward_kernel(
    qkv, fill, grad_out, grad_beyond, log_sum, delta, heads, I, J, scale, extent, qkv_strides, out_strides,
    POSITIONS: tl.constexpr, TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr,
    EVEN: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Gradients of the key and the value beyond the map, of one sequence."""
    _, sample, i, j, head, sequence = tiles.locate(TOKENS, TOKENS, heads, I, J)
    q_start, steps = tiles.enter(qkv, qkv_strides, sample, i, j, head, I, J, HEAD_DIM)
    grad_start, grad_steps = tiles.enter(grad_out, out_strides, sample, i, j, head, I, J, HEAD_DIM)
    sides = tiles.sides(extent, i, j, I, J)
    count, k_beyond, v_beyond = tiles.beyond(fill, sides, head, heads, POSITIONS, FRAMES, HEAD_DIM)
    dk, dv = tl.zeros([HEAD_DIM], tl.float32), tl.zeros([HEAD_DIM], tl.float32)
    for block in range(0, TOKENS, BLOCK_M):
        token = block + tl.arange(0, BLOCK_M)
        inside = tiles.is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
        q = tl.load(q_start + tiles.offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM), mask=inside[:, None], other=0.0)
        grad_place = grad_start + tiles.offsets(token, grad_steps, FRAMES, COLUMNS, HEAD_DIM)
        q, grad = q.to(tl.float32), tl.load(grad_place, mask=inside[:, None], other=0.0).to(tl.float32)
        log_sum_block = tl.load(log_sum + sequence * TOKENS + token, mask=inside, other=0.0)
        delta_block = tl.load(delta + sequence * TOKENS + token, mask=inside, other=0.0)
        score = tl.sum(q * k_beyond, 1) * (scale * LOG2_E)
        weight = count * tl.exp2(tl.where(count > 0, score - log_sum_block, 0.0))
        dk += tl.sum((weight * (tl.sum(grad * v_beyond, 1) - delta_block))[:, None] * q, 0)
        dv += tl.sum(weight[:, None] * grad, 0)
    place = grad_beyond + sequence * 2 * HEAD_DIM + tl.arange(0, HEAD_DIM)
    tl.store(place, dk * scale)
    tl.store(place + HEAD_DIM, dv)


# ---------------------------------------------------------------------------------------- launches


def forward(qkv: Tensor, fill: Tensor, windows: Windows, heads: int, scale: float) -> tuple[Tensor, Tensor]:
    """Attention within the interleaved windows of a map.

    Args:
        qkv: float32, float16 or bfloat16 (B, T, H, W, 3C); the last axis holds q, k and v, each head by head.
        fill: (3C,), what windows hold beyond the map.
        windows: the windows of the map.
        heads: attention heads M.
        scale: scale of the scores, positive.

    Returns:
        The result (B, T, H, W, C), and the logarithm of every softmax's sum (B * I * J * M, N) in float32, which the
        backward pass needs; N are the tokens of the window that has most within the map.
    """
    B, T, H, W, C3 = qkv.shape
    out = qkv.new_empty(B, T, H, W, C3 // 3)
    tokens = windows.tokens(T, H, W)
    log_sum = qkv.new_empty(B * windows.down * windows.across * heads, tokens, dtype=torch.float32)
    qkv = _with_adjacent_channels(qkv)
    _launch(_forward_kernel, "BLOCK_M", (qkv, fill, out, log_sum), (qkv, out), windows, heads, scale)
    return out, log_sum


def backward(
    grad: Tensor,
    qkv: Tensor,
    fill: Tensor,
    out: Tensor,
    log_sum: Tensor,
    windows: Windows,
    heads: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of `qkv` and `fill`, from that of the result and what `forward` took and gave."""
    grad_qkv = qkv.new_empty(qkv.shape)
    delta = torch.empty_like(log_sum)
    qkv, out, grad = _with_adjacent_channels(qkv), out.contiguous(), grad.contiguous()
    maps, about = (qkv, out, grad_qkv), (windows, heads, scale)
    _launch(_query_backward_kernel, "BLOCK_M", (qkv, fill, out, grad, grad_qkv, log_sum, delta), maps, *about)
    _launch(_key_backward_kernel, "BLOCK_N", (qkv, grad, grad_qkv, log_sum, delta), maps, *about)
    grad_fill = torch.zeros_like(fill)
    if not windows.fit(*qkv.shape[2:4]):
        head_dim = len(fill) // (3 * heads)
        beyond = qkv.new_empty(len(log_sum), 2, head_dim, dtype=torch.float32)
        _launch(_beyond_backward_kernel, None, (qkv, fill, grad, beyond, log_sum, delta), (qkv, out), *about)
        grad_fill.view(3, heads, head_dim)[1:] = beyond.view(-1, heads, 2, head_dim).sum(0).transpose(0, 1)
    return grad_qkv, grad_fill


def _with_adjacent_channels(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _launch(
    kernel: Any,
    block: Literal["BLOCK_M", "BLOCK_N"] | None,
    tensors: tuple[Tensor, ...],
    maps: tuple[Tensor, ...],
    windows: Windows,
    heads: int,
    scale: float,
) -> None:
    """Run `kernel` on every block of every sequence, with the strides of `maps`; without a block, on every sequence."""
    _, T, H, W, C3 = tensors[0].shape
    sequences, tokens = tensors[-1].shape
    blocks = {} if block else {"BLOCK_M": 32 if INTERPRETED.value else 64}
    with torch.cuda.device_of(tensors[0]):
        kernel[lambda choice: ((triton.cdiv(tokens, choice[block]) if block else 1) * sequences,)](
            *tensors,
            heads,
            *windows.counts,
            scale,
            (H, W),
            *(x.stride()[:4] for x in maps),
            POSITIONS=T * windows.rows * windows.columns,
            TOKENS=tokens,
            FRAMES=T,
            COLUMNS=-(-W // windows.across),
            EVEN=H % windows.down == 0 and W % windows.across == 0,
            HEAD_DIM=C3 // (3 * heads),
            enable_fp_fusion=True,
            **blocks,
        )
