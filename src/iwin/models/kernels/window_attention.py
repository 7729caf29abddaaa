"""Triton kernels: attention within interleaved windows, reading and writing maps in image order.

Window (i, j) of a map holds the rows r with r mod I = i and the columns c with c mod J = j, over all frames. The
kernels find its tokens by strides, so that neither q, k, v nor the result are ever gathered into windows in memory.

Method: attention in blocks with a running softmax (FlashAttention, arXiv 2205.14135 and 2307.08691). The forward pass
keeps one number a query, the logarithm of its softmax's sum; the backward pass recomputes the weights from it, in one
kernel for the queries' gradients and one for the keys' and values'. Nothing is added up by atomics: results do not
depend on the order in which programs run.

Windows may reach beyond the map. All positions there have the same key and value: they are one key of that many times
the weight, with which the softmax begins. Nobody reads what they would find as queries.

A program computes one block of tokens of one sequence: one head of one window of one sample. A window has `POSITIONS`,
of which up to `TOKENS` are within the map, in all windows as many where `EVEN` holds. Other letters as in
`iwin.models.block`. Logarithms are to base 2, since the hardware has exp2. Importing this file needs Triton:
`iwin.models.kernels.ops` does so when a kernel first runs.
"""

from typing import Any, Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from iwin.models.kernels.product import INTERPRETED, dot
from iwin.models.windows import Windows

LOG2_E = tl.constexpr(1.4426950408889634)

# ---------------------------------------------------------------------------------------- shared by the kernels


def _choices(*choices: tuple[int, int, int, int]) -> list[triton.Config]:
    """What the tuner tries: (queries a block, keys a block, warps, pipeline stages).

    The interpreter is not timed: it runs one choice, blocks so small that small tests fill several.
    """
    if INTERPRETED.value:
        choices = ((32, 16, 4, 1),)
    return [
        triton.Config({"BLOCK_M": queries, "BLOCK_N": keys}, num_warps=warps, num_stages=stages)
        for queries, keys, warps, stages in choices
    ]


def _fitting(configs: list[triton.Config], arguments: dict[str, Any], **_: Any) -> list[triton.Config]:
    """Choices that fit the operands: full float32 products take so many registers that only small blocks fit."""
    if arguments["qkv"].dtype == torch.float32:
        return [triton.Config({"BLOCK_M": 16, "BLOCK_N": 32}, num_warps=4, num_stages=2)]
    return configs


@triton.constexpr_function
def _last(rest, block_size):
    """Size of the last block, for the tokens that whole blocks leave: no product takes less than 16."""
    return min(max(16, triton.next_power_of_2(rest)), block_size)


@triton.jit
def _locate(block_size, TOKENS: tl.constexpr, heads, I, J):
    """This program's first token, sample, window row, window column, head and sequence.

    Blocks of one sequence are neighbours, so that they find its keys in the L2 cache. Sample and sequence have
    64 bits, since offsets of whole samples pass 2^31 in large batches.
    """
    blocks = tl.cdiv(TOKENS, block_size)
    program = tl.program_id(0)
    sequence = program // blocks
    window = sequence // heads
    first = program % blocks * block_size
    sample = (window // (I * J)).to(tl.int64)
    return first, sample, window // J % I, window % J, sequence % heads, sequence.to(tl.int64)


@triton.jit
def _enter(map_start, strides, sample, i, j, head, I, J, HEAD_DIM: tl.constexpr):
    """A window's first token in a map of the given (B, T, H, W) strides, and its own steps (T, rows, columns)."""
    start = map_start + sample * strides[0] + i * strides[2] + j * strides[3] + head * HEAD_DIM
    return start, (strides[1], I * strides[2], J * strides[3])


@triton.jit
def _offsets(token, steps, FRAMES: tl.constexpr, COLUMNS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Offsets (token, channel) of tokens, counted by row, column, frame, from the window's first.

    Any order would do. This one has the cheapest arithmetic, since clips mostly have a power of two of frames.
    """
    frame = token % FRAMES
    position = token // FRAMES
    row = position // COLUMNS
    column = position % COLUMNS
    offset = frame * steps[0] + row * steps[1] + column * steps[2]
    return offset[:, None] + tl.arange(0, HEAD_DIM)[None, :]


@triton.jit
def _is_inside(token, sides, TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr, EVEN: tl.constexpr):
    """Which tokens of a window are within the map, where it has `sides` rows and columns."""
    inside = token < TOKENS
    if not EVEN:
        position = token // FRAMES
        inside &= (position // COLUMNS < sides[0]) & (position % COLUMNS < sides[1])
    return inside


@triton.jit
def _sides(extent, i, j, I, J):
    """Rows and columns of window (i, j) within the map of (height, width)."""
    return tl.cdiv(extent[0] - i, I), tl.cdiv(extent[1] - j, J)


@triton.jit
def _beyond(fill, sides, head, heads, POSITIONS: tl.constexpr, FRAMES: tl.constexpr, HEAD_DIM: tl.constexpr):
    """How many of a window's POSITIONS are beyond the map, and their key and value (1, channel)."""
    count = (POSITIONS - FRAMES * sides[0] * sides[1]).to(tl.float32)
    place = fill + (heads + head) * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :]
    return count, tl.load(place).to(tl.float32), tl.load(place + heads * HEAD_DIM).to(tl.float32)


@triton.jit
def _load(pointers, inside, MASKED: tl.constexpr):
    """Load a block; with MASKED, only the tokens inside the window, zeros for the others."""
    return tl.load(pointers, mask=inside, other=0.0) if MASKED else tl.load(pointers)


# ---------------------------------------------------------------------------------------- forward


@triton.jit
def _attend(
    state, q, k_start, v_start, first, steps, sides, scale,
    TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr, EVEN: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Let a block of queries attend to a block of keys.

    `state` is the running maximum of the scores, the sum of the weights (8 times, side by side) and the sum of the
    weighted values. A block that is MASKED reaches past the window's tokens.
    """
    top, total, acc = state
    token = first + tl.arange(0, BLOCK_N)
    offsets = _offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM)
    inside = _is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
    k = _load(k_start + offsets, inside[:, None], MASKED)
    v = _load(v_start + offsets, inside[:, None], MASKED)
    scores = dot(q, tl.trans(k))
    if MASKED:
        scores = tl.where(inside[None, :], scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1) * scale)
    weights = tl.exp2(scores * scale - new_top[:, None]).to(v.dtype)
    shrink = tl.exp2(top - new_top)
    ones = tl.full([BLOCK_N, 8], 1.0, tl.float32).to(v.dtype)  # adds up in a product: all other units are busy
    total = total * shrink[:, None] + dot(weights, ones)
    acc = acc * shrink[:, None] + dot(weights, v)
    return new_top, total, acc


@triton.autotune(
    configs=_choices((64, 64, 4, 3), (64, 64, 4, 4), (64, 32, 4, 4), (128, 32, 4, 4)),
    key=["TOKENS", "HEAD_DIM"],
    prune_configs_by={"early_config_prune": _fitting},
    cache_results=True,
)
@triton.jit
def _forward_kernel(
    qkv, fill, out, log_sum, heads, I, J, scale, extent, qkv_strides, out_strides,
    POSITIONS: tl.constexpr, TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr,
    EVEN: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    first, sample, i, j, head, sequence = _locate(BLOCK_M, TOKENS, heads, I, J)
    q_start, steps = _enter(qkv, qkv_strides, sample, i, j, head, I, J, HEAD_DIM)
    k_start = q_start + heads * HEAD_DIM
    v_start = k_start + heads * HEAD_DIM
    scale *= LOG2_E

    token = first + tl.arange(0, BLOCK_M)
    sides = _sides(extent, i, j, I, J)
    inside = _is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
    q = tl.load(q_start + _offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM), mask=inside[:, None], other=0.0)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M, 8], tl.float32)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    if POSITIONS > TOKENS or not EVEN:
        count, k_beyond, v_beyond = _beyond(fill, sides, head, heads, POSITIONS, FRAMES, HEAD_DIM)
        top = tl.where(count > 0, tl.sum(q.to(tl.float32) * k_beyond, 1) * scale, top)
        total += count
        acc += count * v_beyond
    state = (top, total, acc)
    WHOLE: tl.constexpr = (TOKENS - 1) // BLOCK_N * BLOCK_N
    LAST: tl.constexpr = _last(TOKENS - WHOLE, BLOCK_N)
    for block in range(0, WHOLE, BLOCK_N):
        state = _attend(
            state, q, k_start, v_start, block, steps, sides, scale,
            TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, BLOCK_N, MASKED=not EVEN,
        )  # fmt: skip
    top, total, acc = _attend(
        state, q, k_start, v_start, WHOLE, steps, sides, scale,
        TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, LAST, MASKED=TOKENS < WHOLE + LAST or not EVEN,
    )  # fmt: skip

    total = tl.sum(total, 1) / 8
    tl.store(log_sum + sequence * TOKENS + token, top + tl.log2(total), mask=token < TOKENS)
    out_start, steps = _enter(out, out_strides, sample, i, j, head, I, J, HEAD_DIM)
    result = (acc / total[:, None]).to(out.dtype.element_ty)
    tl.store(out_start + _offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM), result, mask=inside[:, None])


# ---------------------------------------------------------------------------------------- backward


@triton.jit
def _query_gradient(
    dq, q, grad, log_sum, delta, k_start, v_start, first, steps, sides, scale,
    TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr, EVEN: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Add what a block of keys and values gives to the gradient of a block of queries."""
    token = first + tl.arange(0, BLOCK_N)
    offsets = _offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM)
    inside = _is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
    k = _load(k_start + offsets, inside[:, None], MASKED)
    v = _load(v_start + offsets, inside[:, None], MASKED)
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
    first, sample, i, j, head, sequence = _locate(BLOCK_M, TOKENS, heads, I, J)
    q_start, steps = _enter(qkv, qkv_strides, sample, i, j, head, I, J, HEAD_DIM)
    k_start = q_start + heads * HEAD_DIM
    v_start = k_start + heads * HEAD_DIM
    out_start, out_steps = _enter(out, out_strides, sample, i, j, head, I, J, HEAD_DIM)
    grad_start, out_steps = _enter(grad_out, out_strides, sample, i, j, head, I, J, HEAD_DIM)
    dq_start, dq_steps = _enter(grad_qkv, grad_strides, sample, i, j, head, I, J, HEAD_DIM)

    token = first + tl.arange(0, BLOCK_M)
    sides = _sides(extent, i, j, I, J)
    inside = _is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
    q = tl.load(q_start + _offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM), mask=inside[:, None], other=0.0)
    out_offsets = _offsets(token, out_steps, FRAMES, COLUMNS, HEAD_DIM)
    attended = tl.load(out_start + out_offsets, mask=inside[:, None], other=0.0)
    grad = tl.load(grad_start + out_offsets, mask=inside[:, None], other=0.0)
    log_sum_block = tl.load(log_sum + sequence * TOKENS + token, mask=inside, other=0.0)
    delta_block = tl.sum(attended.to(tl.float32) * grad.to(tl.float32), 1)
    tl.store(delta + sequence * TOKENS + token, delta_block, mask=inside)

    dq = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    if POSITIONS > TOKENS or not EVEN:
        count, k_beyond, v_beyond = _beyond(fill, sides, head, heads, POSITIONS, FRAMES, HEAD_DIM)
        score = tl.sum(q.to(tl.float32) * k_beyond, 1) * (scale * LOG2_E)
        weight = count * tl.exp2(tl.where(count > 0, score - log_sum_block, 0.0))
        dq += (weight * (tl.sum(grad.to(tl.float32) * v_beyond, 1) - delta_block))[:, None] * k_beyond
    WHOLE: tl.constexpr = (TOKENS - 1) // BLOCK_N * BLOCK_N
    LAST: tl.constexpr = _last(TOKENS - WHOLE, BLOCK_N)
    for block in range(0, WHOLE, BLOCK_N):
        dq = _query_gradient(
            dq, q, grad, log_sum_block, delta_block, k_start, v_start, block, steps, sides, scale * LOG2_E,
            TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, BLOCK_N, MASKED=not EVEN,
        )  # fmt: skip
    dq = _query_gradient(
        dq, q, grad, log_sum_block, delta_block, k_start, v_start, WHOLE, steps, sides, scale * LOG2_E,
        TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, LAST, MASKED=TOKENS < WHOLE + LAST or not EVEN,
    )  # fmt: skip
    dq_offsets = _offsets(token, dq_steps, FRAMES, COLUMNS, HEAD_DIM)
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
    inside = _is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
    q = _load(q_start + _offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM), inside[:, None], MASKED)
    grad = _load(grad_start + _offsets(token, grad_steps, FRAMES, COLUMNS, HEAD_DIM), inside[:, None], MASKED)
    log_sum_block = _load(log_sum + token, inside, MASKED)
    delta_block = _load(delta + token, inside, MASKED)
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
    first, sample, i, j, head, sequence = _locate(BLOCK_N, TOKENS, heads, I, J)
    q_start, steps = _enter(qkv, qkv_strides, sample, i, j, head, I, J, HEAD_DIM)
    k_start = q_start + heads * HEAD_DIM
    v_start = k_start + heads * HEAD_DIM
    grad_start, grad_steps = _enter(grad_out, out_strides, sample, i, j, head, I, J, HEAD_DIM)
    log_sum += sequence * TOKENS
    delta += sequence * TOKENS

    token = first + tl.arange(0, BLOCK_N)
    sides = _sides(extent, i, j, I, J)
    inside = _is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)[:, None]
    offsets = _offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM)
    k = tl.load(k_start + offsets, mask=inside, other=0.0)
    v = tl.load(v_start + offsets, mask=inside, other=0.0)
    gradients = (tl.zeros([BLOCK_N, HEAD_DIM], tl.float32), tl.zeros([BLOCK_N, HEAD_DIM], tl.float32))
    WHOLE: tl.constexpr = (TOKENS - 1) // BLOCK_M * BLOCK_M
    LAST: tl.constexpr = _last(TOKENS - WHOLE, BLOCK_M)
    for block in range(0, WHOLE, BLOCK_M):
        gradients = _key_gradients(
            gradients, k, v, q_start, grad_start, log_sum, delta, block, steps, grad_steps, sides, scale * LOG2_E,
            TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, BLOCK_M, MASKED=not EVEN,
        )  # fmt: skip
    dk, dv = _key_gradients(
        gradients, k, v, q_start, grad_start, log_sum, delta, WHOLE, steps, grad_steps, sides, scale * LOG2_E,
        TOKENS, FRAMES, COLUMNS, EVEN, HEAD_DIM, LAST, MASKED=TOKENS < WHOLE + LAST or not EVEN,
    )  # fmt: skip

    dq_start, steps = _enter(grad_qkv, grad_strides, sample, i, j, head, I, J, HEAD_DIM)
    dk_start = dq_start + heads * HEAD_DIM
    dv_start = dk_start + heads * HEAD_DIM
    offsets = _offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM)
    tl.store(dk_start + offsets, (dk * scale).to(grad_qkv.dtype.element_ty), mask=inside)
    tl.store(dv_start + offsets, dv.to(grad_qkv.dtype.element_ty), mask=inside)


@triton.jit
def _beyond_backward_kernel(
    qkv, fill, grad_out, grad_beyond, log_sum, delta, heads, I, J, scale, extent, qkv_strides, out_strides,
    POSITIONS: tl.constexpr, TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr,
    EVEN: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Gradients of the key and the value beyond the map, of one sequence."""
    _, sample, i, j, head, sequence = _locate(TOKENS, TOKENS, heads, I, J)
    q_start, steps = _enter(qkv, qkv_strides, sample, i, j, head, I, J, HEAD_DIM)
    grad_start, grad_steps = _enter(grad_out, out_strides, sample, i, j, head, I, J, HEAD_DIM)
    sides = _sides(extent, i, j, I, J)
    count, k_beyond, v_beyond = _beyond(fill, sides, head, heads, POSITIONS, FRAMES, HEAD_DIM)
    dk, dv = tl.zeros([HEAD_DIM], tl.float32), tl.zeros([HEAD_DIM], tl.float32)
    for block in range(0, TOKENS, BLOCK_M):
        token = block + tl.arange(0, BLOCK_M)
        inside = _is_inside(token, sides, TOKENS, FRAMES, COLUMNS, EVEN)
        q = tl.load(q_start + _offsets(token, steps, FRAMES, COLUMNS, HEAD_DIM), mask=inside[:, None], other=0.0)
        grad_place = grad_start + _offsets(token, grad_steps, FRAMES, COLUMNS, HEAD_DIM)
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
