"""The kernel in C++ against libswscale, through PyAV."""

from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.video.reformatter import VideoReformatter

from iwin.data.rgb import SOURCE, takes, to_rgb
from iwin.native import has
from iwin.transforms.boxes import Box
from tests.memory import fenced
from tests.videos import numbered_frames, write_video

pytestmark = pytest.mark.skipif(not has(SOURCE, "to_rgb"), reason="the kernel needs a C++ compiler and AVX-512 VBMI")

BT709, BT601, BT2020_NCL, YCOCG = 1, 5, 9, 8
LIMITED, FULL = 1, 2


def picture(height: int, width: int, *, pix_fmt: str = "yuv420p", **colours: int) -> av.VideoFrame:
    """Every byte at random: also colours that no RGB picture has."""
    rng = np.random.default_rng(height * width)
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane in frame.planes:
        plane.update(rng.bytes(plane.height * plane.line_size))
    for name, value in colours.items():
        setattr(frame, name, value)
    return frame


def by_libswscale(frame: av.VideoFrame) -> npt.NDArray[Any]:
    return VideoReformatter().reformat(frame, frame.width, frame.height, "rgb24", threads=1).to_ndarray()


def by_kernel(frame: av.VideoFrame, box: Box) -> npt.NDArray[np.uint8]:
    assert takes(frame)
    out = np.empty((box.height, box.width, 3), np.uint8)
    to_rgb(frame, box, out)
    return out


@pytest.mark.parametrize(("pix_fmt", "colour_range"), [("yuv420p", LIMITED), ("yuv420p", FULL), ("yuvj420p", FULL)])
@pytest.mark.parametrize("colorspace", [BT709, 2, 4, BT601, 6, 7, BT2020_NCL])
def test_every_colour_is_libswscales(pix_fmt: str, colour_range: int, colorspace: int) -> None:
    colours = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).astype(np.uint8)
    frame = av.VideoFrame(512, 512, pix_fmt)
    frame.colorspace, frame.color_range = colorspace, colour_range
    for start in range(0, 256, 4):  # each colour meets four of the 256 values of luma in a picture
        luma = np.tile(np.arange(start, start + 4, dtype=np.uint8).reshape(2, 2), (256, 256))
        for plane, values in zip(frame.planes, (luma, colours[..., 0], colours[..., 1]), strict=True):
            plane.update(np.ascontiguousarray(values).tobytes())
        assert np.array_equal(by_kernel(frame, Box(0, 0, 512, 512)), by_libswscale(frame))


@pytest.mark.parametrize("height", [2, 6, 34])
def test_pictures_of_every_width_are_libswscales(height: int) -> None:
    for width in [*range(2, 140, 2), 340, 456, 1280]:
        frame = picture(height, width)
        assert np.array_equal(by_kernel(frame, Box(0, 0, height, width)), by_libswscale(frame)), width


def test_a_box_is_a_part_of_the_whole() -> None:
    frame = picture(48, 140)
    whole = by_libswscale(frame)
    for top, left, height, width in product((0, 1, 22), (0, 1, 2, 31), (1, 2, 25), (1, 2, 31, 32, 33, 64, 97, 109)):
        part = by_kernel(frame, Box(top, left, height, width))
        assert np.array_equal(part, whole[top : top + height, left : left + width]), (top, left, height, width)


@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_beside_the_result_is_touched(at_end: bool) -> None:
    memory = fenced(2**14).numpy()  # to touch what lies beside it ends the process
    frame = picture(16, 140)
    for width in range(1, 140):
        out = memory[-16 * 3 * width :] if at_end else memory[: 16 * 3 * width]
        to_rgb(frame, Box(0, 140 - width, 16, width), out.reshape(16, width, 3))


def test_other_pictures_are_left_to_libswscale() -> None:
    assert not takes(picture(15, 32))  # where the height is odd, libswscale interpolates
    assert not takes(picture(16, 31))
    assert not takes(picture(16, 32, pix_fmt="yuv422p"))
    assert not takes(picture(16, 32, pix_fmt="yuv420p10le"))
    assert not takes(picture(16, 32, colorspace=YCOCG))


def test_interlaced_pictures_are_left_to_libswscale(tmp_path: Path) -> None:
    options = {"x264-params": "tff=1"}
    path = write_video(tmp_path / "a.mp4", numbered_frames(2, height=64, width=96), options=options)
    with av.open(str(path)) as container:
        assert not takes(next(container.decode(video=0)))


@pytest.mark.parametrize("box", [Box(0, 0, 17, 32), Box(0, 1, 16, 32), Box(-1, 0, 16, 32), Box(0, 0, 8, 32)])
def test_boxes_and_results_that_do_not_fit_are_refused(box: Box) -> None:
    with pytest.raises(ValueError, match="does not fill"):
        to_rgb(picture(16, 32), box, np.empty((16, 32, 3), np.uint8))
