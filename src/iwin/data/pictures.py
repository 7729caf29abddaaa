"""From the pictures that FFmpeg decodes to RGB pixels as displayed: turned, cropped, scaled.

Only the part that is wanted is converted where that saves more than it costs. The result is the same to the last bit.
"""

from typing import Any, NamedTuple, Self, cast

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from iwin.data.rgb import takes, to_rgb
from iwin.transforms.geometry import Box, Size

Pixels = npt.NDArray[np.uint8]
"""RGB (H, W, 3)."""

_CROP_GAIN = 2_000_000
"""Pixels that cropping must spare the conversion to be worth it: setting FFmpeg's crop up takes half a millisecond."""

_GRID = 16
"""Pictures are cropped at multiples of this many pixels, and at least as many are left around what is wanted: so
converters that look at neighbours, dither in patterns or work on several pixels at once do what they do on the whole.
"""


class Orientation(NamedTuple):
    """The turn from the stored picture to the displayed one: transpose first, then flip."""

    transpose: bool
    flip_x: bool
    flip_y: bool

    @classmethod
    def of(cls, picture: av.VideoFrame) -> Self:
        """Read the display matrix (rows a b u, c d v, x y w): it sends (x, y) to (a x + c y, b x + d y)."""
        # The matrix and not picture.rotation, which leaves mirrored pictures out.
        matrix = cast(Any, picture.side_data).get(SideDataType.DISPLAYMATRIX)
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist() if matrix is not None else (1, 0, 0, 0, 1)
        return cls(False, a < 0, d < 0) if abs(a) >= abs(b) else cls(True, c < 0, b < 0)

    def turn(self, size: Size) -> Size:
        """(height, width) as displayed of a stored picture, or the other way round."""
        return size[::-1] if self.transpose else size

    def apply(self, picture_HWC: Pixels) -> Pixels:
        """Turn one picture (H, W, 3), as a view."""
        turned = picture_HWC.transpose(1, 0, 2) if self.transpose else picture_HWC
        return turned[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def stored_box(self, box: Box, shown: Size) -> Box:
        """Where a box of the displayed picture, which has the size `shown`, lies in the stored one."""
        top, left, height, width = box
        if self.flip_y:
            top = shown[0] - top - height
        if self.flip_x:
            left = shown[1] - left - width
        return Box(left, top, width, height) if self.transpose else Box(top, left, height, width)


class PictureConverter:
    """Makes RGB pixels as displayed of a video's pictures.

    Args:
        first: the picture that gives the video its size and its orientation. Pictures of another size (it may change
            midway) are scaled to that.

    Attributes:
        size: height and width of the whole pictures, as displayed.
    """

    def __init__(self, first: av.VideoFrame) -> None:
        self._stored: Size = first.height, first.width
        self._orientation = Orientation.of(first)
        self.size = self._orientation.turn(self._stored)
        self._reformatter, self._scaler = VideoReformatter(), VideoReformatter()
        self._box = self._around = Box(0, 0, *self._stored)
        self._scaled: Size | None = None
        self._crop: Graph | None = None
        self._format: str | None = None

    def prepare(self, *, count: int, box: Box | None, size: Size | None) -> None:
        """Say what the next pictures are converted to.

        Args:
            count: how many pictures there will be, about.
            box: the part of the displayed picture that is wanted; None for all of it.
            size: (height, width) that libswscale scales that part to; None leaves it as it is.
        """
        height, width = self._stored
        self._box = self._orientation.stored_box(box or Box(0, 0, *self.size), self.size)
        self._scaled = size and self._orientation.turn(size)
        self._around = _snapped(self._box, self._stored) if size is None else _even(self._box, self._stored)
        spared = count * (height * width - self._around.height * self._around.width)
        # libswscale converts pictures of odd size in another way, which a part of even size would not show.
        exact = size is not None or height % 2 == width % 2 == 0
        if not exact or spared < (_CROP_GAIN if size is None else 1):
            self._around = Box(0, 0, height, width)
        self._crop = None

    def convert(self, picture: av.VideoFrame, out: Pixels) -> None:
        """Make pixels of one picture.

        Args:
            picture: of the video.
            out: (H, W, 3) of the box and size that `prepare` was given, contiguous; filled.

        Raises:
            av.FFmpegError: libswscale does not take the picture's colours.
            OSError: likewise.
        """
        whole = Box(0, 0, *self._stored)
        if (picture.height, picture.width) != self._stored:
            picture = self._reformat(picture, self._stored)
        if self._scaled is None and takes(picture):
            upright = self._orientation == (False, False, False)
            stored = out if upright else np.empty((*self._box[2:], 3), np.uint8)
            to_rgb(picture, self._box, stored)
            if not upright:
                out[...] = self._orientation.apply(stored)
            return
        if self._around != whole:
            picture = self._cropped(picture)
        if self._scaled is not None:
            # Scaling the planes and making RGB of the result takes half the time of both at once.
            picture = self._scaler.reformat(picture, self._scaled[1], self._scaled[0], threads=1)
        pixels = cast(Pixels, self._reformat(picture, self._scaled or self._around[2:]).to_ndarray())
        if self._scaled is None:
            top, left = self._box.top - self._around.top, self._box.left - self._around.left
            pixels = pixels[top : top + self._box.height, left : left + self._box.width]
        out[...] = self._orientation.apply(pixels)

    def _reformat(self, picture: av.VideoFrame, size: Size) -> av.VideoFrame:
        # threads=1: PyAV's default starts a thread a core for every video.
        return self._reformatter.reformat(picture, size[1], size[0], "rgb24", threads=1)

    def _cropped(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The part around what is wanted, sharing the picture's memory."""
        if self._crop is None or self._format != picture.format.name:
            self._crop, self._format = _crop_graph(picture, self._around), picture.format.name
        self._crop.vpush(picture)
        return self._crop.vpull()


def _crop_graph(picture: av.VideoFrame, box: Box) -> Graph:
    """FFmpeg's crop filter for pictures of this size and format: it moves pointers and copies nothing."""
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
    )
    crop = graph.add("crop", f"{box.width}:{box.height}:{box.left}:{box.top}:exact=1")
    graph.link_nodes(source, crop, graph.add("buffersink")).configure()
    return graph


def _snapped(box: Box, size: Size) -> Box:
    """The box and its surroundings, on the grid, within a picture of that size."""
    top, left = (max(start // _GRID - 1, 0) * _GRID for start in box[:2])
    ends = ((-(-(start + side) // _GRID) + 1) * _GRID for start, side in zip(box[:2], box[2:], strict=True))
    bottom, right = (min(end, limit) for end, limit in zip(ends, size, strict=True))
    return Box(top, left, bottom - top, right - left)


def _even(box: Box, size: Size) -> Box:
    """The nearest box whose borders lie between pixels that share colours, as they do in twos in most videos."""
    top, left = box.top // 2 * 2, box.left // 2 * 2
    height, width = (box.height + 1) // 2 * 2, (box.width + 1) // 2 * 2
    return Box(top, left, min(height, size[0] - top), min(width, size[1] - left))
