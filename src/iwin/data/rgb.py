"""RGB of pictures whose planes hold luma and, for every four pixels, colour (8 bit, 4:2:0): most videos' pictures.

A kernel in C++ makes libswscale's bytes of the part that is wanted, in a fraction of the time; other pictures are left
to libswscale.
"""

import ctypes
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt

from iwin.native import has, library
from iwin.transforms.boxes import Box

SOURCE = Path(__file__).with_suffix(".cpp")

_FULL_RANGE = 2
"""FFmpeg's AVCOL_RANGE_JPEG: luma and colours use all of a byte."""

_BT601 = (104597, 132201, -25675, -53279)

_COLOURS = {  # libswscale's, times 2^16: red of V, blue of U, green of U and of V; by FFmpeg's AVColorSpace
    1: (117489, 138438, -13975, -34925),  # BT.709
    2: _BT601,  # not told
    4: (104448, 132798, -24759, -53109),  # FCC
    5: _BT601,
    6: _BT601,  # SMPTE 170M
    7: (117579, 136230, -16907, -35559),  # SMPTE 240M
    9: (110013, 140363, -12277, -42626),  # BT.2020
}


class _Factors(NamedTuple):
    """What the kernel multiplies with, in 16 bits."""

    offset: int
    luma: int
    red_v: int
    green_u: int
    green_v: int
    blue_u: int


@lru_cache
def _factors(colorspace: int, full_range: bool) -> "ctypes.Array[ctypes.c_int16]":
    red_v, blue_u, green_u, green_v = (
        # In the full range colours are not stretched; libswscale's division rounds towards zero.
        int(factor * 224 / 255) if full_range else factor
        for factor in _COLOURS[colorspace]
    )
    luma = 2**16 if full_range else 2**16 * 255 // 219
    eighths = (_to_16_bits(factor) for factor in (luma, red_v, green_u, green_v, blue_u))
    return (ctypes.c_int16 * 6)(*_Factors(0 if full_range else 16 * 8, *eighths))


def _to_16_bits(factor: int) -> int:
    return min((factor * 2**13 + 2**15) >> 16, 2**15 - 1)


def takes(picture: av.VideoFrame) -> bool:
    """Whether `to_rgb` can convert a picture."""
    # libswscale interpolates where the height is odd, and takes the two fields of an interlaced picture for themselves.
    return (
        picture.format.name in ("yuv420p", "yuvj420p")
        and picture.height % 2 == picture.width % 2 == 0
        and not picture.interlaced_frame
        and int(picture.colorspace) in _COLOURS
        and has(SOURCE, "to_rgb")
    )


def to_rgb(picture: av.VideoFrame, box: Box, out: npt.NDArray[np.uint8]) -> None:
    """Convert a part of a picture.

    Args:
        picture: `takes` accepts it.
        box: the part, within the picture as it is stored.
        out: uint8 (height, width, 3) of the box, contiguous; filled.

    Raises:
        ValueError: the box or the result do not fit.
    """
    top, left, height, width = box
    inside = min(top, left) >= 0 and top + height <= picture.height and left + width <= picture.width
    if not inside or out.shape != (height, width, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"{box} of a picture of {picture.height} x {picture.width} does not fill uint8 {out.shape}")
    kernel = library(SOURCE)
    assert kernel is not None
    full_range = picture.format.name == "yuvj420p" or int(picture.color_range) == _FULL_RANGE
    planes = (ctypes.c_long * 6)(*chain.from_iterable((plane.buffer_ptr, plane.line_size) for plane in picture.planes))
    factors = _factors(int(picture.colorspace), full_range)
    kernel.to_rgb(planes, _c_box(box), factors, ctypes.c_void_p(out.ctypes.data))


@lru_cache(maxsize=64)
def _c_box(box: Box) -> "ctypes.Array[ctypes.c_long]":
    return (ctypes.c_long * 4)(*box)
