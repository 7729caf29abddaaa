"""A box of a picture is the same, to the last bit, whether all of the picture or only that part is converted."""

from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from iwin.data import pictures
from iwin.data.decode import Framing, open_video
from iwin.errors import VideoError
from iwin.transforms.geometry import Box
from tests.videos import numbered_frames, write_video

FORMATS: dict[str, dict[str, Any]] = {
    "4:2:0": {},
    "4:2:0, odd width": {"codec": "ffv1", "width": 95},
    "4:2:0, odd height": {"codec": "ffv1", "height": 63},
    "4:2:2": {"pix_fmt": "yuv422p"},
    "4:4:4": {"pix_fmt": "yuv444p"},
    "4:1:0": {"codec": "ffv1", "pix_fmt": "yuv410p"},
    "4:2:0, 10 bit": {"pix_fmt": "yuv420p10le"},
    "4:2:2, 10 bit": {"pix_fmt": "yuv422p10le"},
    "4:4:4, 12 bit": {"codec": "ffv1", "pix_fmt": "yuv444p12le"},
    "full range": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "grey": {"codec": "ffv1", "pix_fmt": "gray"},
    "RGB": {"codec": "ffv1", "pix_fmt": "bgr0"},
    "palette": {"codec": "gif", "pix_fmt": "rgb8", "suffix": ".gif"},
    "turned by 90 degrees": {"rotation": 90, "suffix": ".mp4"},
    "turned by 180 degrees": {"rotation": 180, "suffix": ".mp4"},
    "turned by 270 degrees": {"rotation": 270, "suffix": ".mp4"},
    "mirrored": {"hflip": True, "suffix": ".mp4"},
    "turned and mirrored": {"rotation": 90, "hflip": True, "suffix": ".mp4"},
}


def write(folder: Path, *, suffix: str = ".mkv", height: int = 64, width: int = 96, **options: Any) -> Path:
    frames = numbered_frames(4, height=height, width=width)
    frames = frames ^ np.random.default_rng(0).integers(0, 32, frames.shape, dtype=np.uint8)  # colours of every pixel
    return write_video(folder / f"clip{suffix}", frames, **options)


@pytest.fixture(autouse=True)
def always_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny pictures are worth no crop before the conversion; this makes them worth it."""
    monkeypatch.setattr(pictures, "_CROP_GAIN", 1)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("name", FORMATS)
def test_a_box_equals_the_part_of_the_whole(
    name: str, kernel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(pictures, "takes", lambda _picture: False)
    path = write(tmp_path, **FORMATS[name])
    with open_video(path) as video:
        whole = video.get_frames([0, 2])
        for top, left, height, width in product((0, 1, 40), (0, 3, 26, 40), (1, 17), (2, 9, 23)):
            part = video.get_frames([0, 2], Framing(Box(top, left, height, width)))
            assert torch.equal(part, whole[:, top : top + height, left : left + width]), (top, left, height, width)
            assert part.is_contiguous()


@pytest.mark.parametrize(("colorspace", "colour_range"), [(1, 1), (1, 2), (5, 1), (9, 1)])
def test_colours_survive_the_crop(colorspace: int, colour_range: int, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, colour_range
        frame = av.VideoFrame.from_ndarray(numbered_frames(1)[0], format="rgb24").reformat(format="yuv420p")
        frame.colorspace, frame.color_range = colorspace, colour_range
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_video(path) as video:
        whole = video.get_frames([0])
        assert torch.equal(video.get_frames([0], Framing(Box(5, 7, 20, 21))), whole[:, 5:25, 7:28])


def test_only_what_is_wanted_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    reformat = pictures.PictureConverter._reformat

    def noting(converter: pictures.PictureConverter, picture: av.VideoFrame, size: Any) -> av.VideoFrame:
        sizes.append((picture.height, picture.width))
        return reformat(converter, picture, size)

    monkeypatch.setattr(pictures.PictureConverter, "_reformat", noting)
    path = write(tmp_path, height=128, width=192, pix_fmt="yuv422p")  # 4:2:0 is the kernel's
    with open_video(path) as video:
        video.get_frames([1], Framing(Box(50, 70, 10, 12)))
        monkeypatch.setattr(pictures, "_CROP_GAIN", 10**9)
        video.get_frames([1], Framing(Box(50, 70, 10, 12)))
    assert sizes == [(48, 64), (128, 192)]


@pytest.mark.parametrize("name", ["4:2:0", "4:4:4", "4:2:0, 10 bit", "turned by 90 degrees", "mirrored"])
@pytest.mark.parametrize("box", [None, Box(8, 12, 40, 44)])
def test_the_decoder_scales(name: str, box: Box | None, tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "clip.mp4",
        numbered_frames(4),
        **{key: value for key, value in FORMATS[name].items() if key != "suffix"},
    )
    with open_video(path) as video:
        whole = video.get_frames([0, 2], Framing(box))
        scaled = video.get_frames([0, 2], Framing(box, size=(20, 22)))
    assert scaled.shape == (2, 20, 22, 3)
    pixels = torch.nn.functional.interpolate(
        whole.permute(0, 3, 1, 2).float(), (20, 22), mode="bilinear", antialias=True
    ).permute(0, 2, 3, 1)
    assert (scaled.float() - pixels).abs().mean() < 8


def test_a_box_outside_the_picture_is_refused(tmp_path: Path) -> None:
    with open_video(write(tmp_path)) as video, pytest.raises(VideoError, match="does not lie within"):
        video.get_frames([0], Framing(Box(60, 0, 5, 5)))
