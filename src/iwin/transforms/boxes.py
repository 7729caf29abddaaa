"""Sizes of pictures and parts of them."""

from typing import NamedTuple

Size = tuple[int, int]
"""(height, width) in pixels."""


class Box(NamedTuple):
    """A part of a picture as displayed, in pixels; top and left count from 0."""

    top: int
    left: int
    height: int
    width: int
