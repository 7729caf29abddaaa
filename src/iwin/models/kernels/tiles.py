"""What a program of the attention kernels works at: blocks of tokens of one window, found by strides.

A program computes one block of tokens of one sequence: one head of one window of one sample. A window has `POSITIONS`,
of which up to `TOKENS` are within the map, in all windows as many where `EVEN` holds. Other letters as in
`iwin.models.block`.
"""

import triton
import triton.language as tl


@triton.constexpr_function
def last_size(rest, block_size):
    """Size of the last block, for the tokens that whole blocks leave: no product takes less than 16."""
    return min(max(16, triton.next_power_of_2(rest)), block_size)


@triton.jit
def locate(block_size, TOKENS: tl.constexpr, heads, I, J):
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
def enter(map_start, strides, sample, i, j, head, I, J, HEAD_DIM: tl.constexpr):
    """A window's first token in a map of the given (B, T, H, W) strides, and its own steps (T, rows, columns)."""
    start = map_start + sample * strides[0] + i * strides[2] + j * strides[3] + head * HEAD_DIM
    return start, (strides[1], I * strides[2], J * strides[3])


@triton.jit
def offsets(token, steps, FRAMES: tl.constexpr, COLUMNS: tl.constexpr, HEAD_DIM: tl.constexpr):
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
def is_inside(token, sides, TOKENS: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr, EVEN: tl.constexpr):
    """Which tokens of a window are within the map, where it has `sides` rows and columns."""
    inside = token < TOKENS
    if not EVEN:
        position = token // FRAMES
        inside &= (position // COLUMNS < sides[0]) & (position % COLUMNS < sides[1])
    return inside


@triton.jit
def sides(extent, i, j, I, J):
    """Rows and columns of window (i, j) within the map of (height, width)."""
    return tl.cdiv(extent[0] - i, I), tl.cdiv(extent[1] - j, J)


@triton.jit
def beyond(fill, sides, head, heads, POSITIONS: tl.constexpr, FRAMES: tl.constexpr, HEAD_DIM: tl.constexpr):
    """How many of a window's POSITIONS are beyond the map, and their key and value (1, channel)."""
    count = (POSITIONS - FRAMES * sides[0] * sides[1]).to(tl.float32)
    place = fill + (heads + head) * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :]
    return count, tl.load(place).to(tl.float32), tl.load(place + heads * HEAD_DIM).to(tl.float32)


@triton.jit
def load(pointers, inside, MASKED: tl.constexpr):
    """Load a block; with MASKED, only the tokens inside the window, zeros for the others."""
    return tl.load(pointers, mask=inside, other=0.0) if MASKED else tl.load(pointers)
