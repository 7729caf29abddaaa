"""Memory that shows who touches what is not theirs."""

import ctypes
import mmap

import numpy as np
import torch
from torch import Tensor


def fenced(size: int) -> Tensor:
    """So many bytes between two pages that cannot be read or written: to touch those ends the process."""
    memory = mmap.mmap(-1, size + 2 * mmap.PAGESIZE)
    pixels = np.frombuffer(memory, np.uint8)
    protect = ctypes.CDLL(None).mprotect
    for page in (0, size + mmap.PAGESIZE):
        assert protect(ctypes.c_void_p(pixels.ctypes.data + page), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    return torch.from_numpy(pixels[mmap.PAGESIZE : -mmap.PAGESIZE])
