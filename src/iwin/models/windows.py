"""Interleaved windows of a map: how many there are, and the way into them and back.

Letters: B batch, T frames (after the patch embedding: time steps), H rows, W columns, C channels, I x J windows of a
frame, N tokens of a window.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Windows(NamedTuple):
    """Interleaved windows of a map, which they may reach beyond at its bottom and right.

    Window (i, j) holds the rows r with r mod `down` = i and the columns c with c mod `across` = j, over all frames.

    Attributes:
        down: windows along the rows.
        across: windows along the columns.
        rows: rows of a window.
        columns: columns of a window.
    """

    down: int
    across: int
    rows: int
    columns: int

    @property
    def counts(self) -> tuple[int, int]:
        """Windows (I, J) along each axis."""
        return self.down, self.across

    def tokens(self, steps: int, height: int, width: int) -> int:
        """Tokens of the window that has most within a map of so many time steps and this size."""
        return steps * -(-height // self.down) * -(-width // self.across)

    def fit(self, height: int, width: int) -> bool:
        """Whether they end where a map of this size does."""
        return (height, width) == (self.down * self.rows, self.across * self.columns)


def windows_of(height: int, width: int, window_size: tuple[int, int]) -> Windows:
    """The windows of a map; a side not longer than the window is one window."""
    rows, columns = min(window_size[0], height), min(window_size[1], width)
    return Windows(-(-height // rows), -(-width // columns), rows, columns)


def beyond_map(qkv: Tensor, windows: Windows, fill: Tensor | None) -> Tensor:
    """What kernels read at the positions of windows that are beyond a map qkv (B, T, H, W, 3 C).

    `fill` (3 C,) in the map's precision, zeros where it is None, and empty where windows hold no such positions.
    """
    if windows.fit(*qkv.shape[2:4]):
        return qkv.new_empty(0)
    return qkv.new_zeros(qkv.shape[-1]) if fill is None else fill.to(qkv.dtype)


def pad_to_windows(x: Tensor, windows: Windows) -> Tensor:
    """Zero-pad the bottom and right of x (B, T, H, W, C) until every window is full.

    The padding takes part in attention: the published weights were trained that way.
    """
    height, width = x.shape[2:4]
    if windows.fit(height, width):
        return x
    return F.pad(x, (0, 0, 0, windows.across * windows.columns - width, 0, windows.down * windows.rows - height))


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
