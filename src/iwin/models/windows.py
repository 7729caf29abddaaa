"""Interleaved windows of a map: how many there are, and the way into them and back.

Letters: B batch, T frames (after the patch embedding: time steps), H rows, W columns, C channels, I x J windows of a
frame, N tokens of a window.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def window_counts(height: int, width: int, window_size: tuple[int, int]) -> tuple[int, int]:
    """Number of interleaved windows (I, J) along each axis of a map; a side that fits in one window is one window."""
    return -(-height // window_size[0]), -(-width // window_size[1])


def pad_to_windows(x: Tensor, window_size: tuple[int, int]) -> Tensor:
    """Zero-pad the bottom and right of x (B, T, H, W, C) until every window is full.

    A side not longer than the window is the window and needs no padding. The padding takes part in attention: the
    published weights were trained that way.
    """
    height, width = x.shape[2:4]
    bottom = -height % min(window_size[0], height)
    right = -width % min(window_size[1], width)
    return F.pad(x, (0, 0, 0, right, 0, bottom)) if bottom or right else x


def interleave(x: Tensor, counts: tuple[int, int]) -> Tensor:
    """Gather x (B, T, H, W, C) into interleaved windows (B * I * J, N, C), one permute.

    Window (i, j) holds the rows r with r mod I = i and the columns c with c mod J = j, over all frames; its tokens are
    ordered by frame, row, column. H must divide by I and W by J.
    """
    B, T, H, W, C = x.shape
    I, J = counts
    x = x.view(B, T, H // I, I, W // J, J, C).permute(0, 3, 5, 1, 2, 4, 6)
    return x.reshape(B * I * J, T * (H // I) * (W // J), C)


def deinterleave(windows: Tensor, counts: tuple[int, int], shape: Sequence[int]) -> Tensor:
    """Undo `interleave`, one permute: windows (B * I * J, N, C) to a map of the given shape (B, T, H, W, C)."""
    B, T, H, W, C = shape
    I, J = counts
    windows = windows.view(B, I, J, T, H // I, W // J, C).permute(0, 3, 4, 1, 5, 2, 6)
    return windows.reshape(B, T, H, W, C)
