"""Memory for clips, used again and again.

To touch fresh memory for the first time takes several times as long as to copy a clip into it: the system clears it,
4 KiB after 4 KiB. Clips are of the same few sizes, so what one leaves suits the next.
"""

import math
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_LEAST = 2**20
"""Bytes below which memory comes from the heap, where it is used again anyway."""

_KEPT = 4
"""Blocks that wait for their next use at most; those that have waited longest go."""

_Block = npt.NDArray[np.uint8]

_free: deque[_Block] = deque(maxlen=_KEPT)


def empty_clip(*shape: int) -> Tensor:
    """A uint8 tensor whose values are undefined; its memory is used again when nothing refers to it any more."""
    size = math.prod(shape)
    if size < _LEAST:
        return torch.empty(shape, dtype=torch.uint8)
    block = _take(size)
    used = block[:size]
    weakref.finalize(used, _free.append, block).atexit = False
    return torch.from_numpy(used).view(shape)  # in PyTorch: a view in NumPy would refer to the block, not to `used`


def _take(size: int) -> _Block:
    """A block of so many bytes or somewhat more. Blocks may come back in other threads at any moment."""
    for _ in range(_KEPT):
        try:
            block = _free.pop()
        except IndexError:
            break
        if size <= block.size <= 2 * size:
            return block
        _free.appendleft(block)
    return np.empty(size, np.uint8)
