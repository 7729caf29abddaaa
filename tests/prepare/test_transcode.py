"""Videos made small: same frames, same times, upright, whole or not at all."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.frame import PictureType

from iwin.bench.footage import make_footage
from iwin.data.decode import open_video
from iwin.errors import IwinError, VideoError
from iwin.prepare.timing import compare_decoding
from iwin.prepare.transcode import Recipe, transcode
from tests.prepare.files import BAD, write_hole, write_in_part
from tests.videos import numbered_frames, read_number, remux, write_video

SMALL = Recipe(short_side=96, crf=12, preset="ultrafast")
KEYFRAMES = Recipe(short_side=96, crf=12, keyframe_interval=1)

UNEVEN = [40 * number + 11 * (number % 3) for number in range(30)]
"""Milliseconds of a video of variable rate."""

FORMS: dict[str, dict[str, Any]] = {
    "plain.mp4": {"audio": True},
    "bframes.mkv": {"bframes": 3, "gop": 30},
    "uneven.mkv": {"pts": UNEVEN},
    "packed.avi": {"codec": "mpeg4", "bframes": 2},
    "guessed.avi": {"bframes": 2},
    "turned.mp4": {"rotation": 90},
    "mirrored.mov": {"rotation": 180, "hflip": True},
    "mirrored turned.mov": {"rotation": 270, "hflip": True},
    "stream.ts": {},
    "ten bits.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
    "full range.mp4": {"pix_fmt": "yuvj420p"},
    "hd colours.mp4": {"options": {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709"}},
    "web.webm": {"codec": "libvpx-vp9"},
    "film.mpg": {"codec": "mpeg2video"},
    "pictures.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}


@pytest.mark.parametrize("recipe", [SMALL, KEYFRAMES], ids=["h264", "mpeg2"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_keeps_its_frames(tmp_path: Path, name: str, recipe: Recipe) -> None:
    source = write_video(tmp_path / name, numbered_frames(30, height=128, width=192), **FORMS[name])
    target = tmp_path / "made" / "small.mp4"
    assert transcode(source, target, recipe) == 30
    with open_video(source) as before, open_video(target) as after:
        assert after.num_frames == 30
        assert after.duration == pytest.approx(before.duration, rel=0.01)
        assert (after.height, after.width) == ((144, 96) if before.height > before.width else (96, 144))
        old, new = before.get_frames(range(30)), after.get_frames(range(30))
    assert [read_number(frame) for frame in new] == [read_number(frame) for frame in old]
    # A palette's colours survive halving of the colour planes less well; and these pictures are of few colours, which
    # all are rounded to the same side where another range of numbers is made of them.
    tolerance = 3.0 if name.endswith(".gif") or (name.startswith("full range") and recipe.is_mpeg2) else 1.5
    difference = old.float().mean((0, 1, 2)) - new.float().mean((0, 1, 2))
    assert difference.abs().max() < tolerance


def test_colours_that_use_all_of_a_byte_get_no_cast(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:96, :144]
    waves = np.stack([columns / 31, rows / 23, (rows + columns) / 37], axis=-1)
    frames = np.stack([128 + 110 * np.sin(waves + number) for number in range(8)]).astype(np.uint8)
    source = write_video(tmp_path / "full.mp4", frames, pix_fmt="yuvj420p", options={"crf": "4"})
    transcode(source, tmp_path / "small.mp4", Recipe(short_side=96, keyframe_interval=1, crf=8))
    with open_video(source) as before, open_video(tmp_path / "small.mp4") as after:
        difference = before.get_frames(range(8)).float() - after.get_frames(range(8)).float()
    red, green, blue = difference.mean((0, 1, 2)).tolist()
    assert max(abs(red), abs(green), abs(blue)) < 0.8
    assert max(red, green, blue) - min(red, green, blue) < 0.3


@pytest.mark.parametrize("recipe", [SMALL, KEYFRAMES], ids=["h264", "mpeg2"])
def test_frames_are_shown_when_they_were(tmp_path: Path, recipe: Recipe) -> None:
    source = write_video(tmp_path / "a.mkv", numbered_frames(30), pts=[500 + time for time in UNEVEN], bframes=2)
    transcode(source, tmp_path / "b.mp4", recipe)
    with av.open(str(tmp_path / "b.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        shown = [round(float((frame.pts or 0) * stream.time_base) * 1000) for frame in container.decode(stream)]
        assert container.streams.audio == ()
    assert shown == UNEVEN


@pytest.mark.parametrize(("interval", "expected"), [(1, 30), (7, 5), (16, 2)])
def test_keyframes_stand_where_they_are_asked_for(tmp_path: Path, interval: int, expected: int) -> None:
    source = write_video(tmp_path / "a.mp4", numbered_frames(30), gop=250)
    transcode(source, tmp_path / "b.mp4", Recipe(keyframe_interval=interval))
    with av.open(str(tmp_path / "b.mp4")) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert sum(keys) == expected
    assert [number for number, key in enumerate(keys) if key] == list(range(0, 30, interval))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "h264"),
        ({"keyframe_interval": 1}, "mpeg2video"),
        ({"keyframe_interval": 1, "codec": "h264"}, "h264"),
        ({"keyframe_interval": 1, "fast_decode": False}, "h264"),
        ({"keyframe_interval": 1, "crf": 0}, "h264"),  # better than MPEG-2 can
    ],
)
def test_nothing_but_keyframes_is_mpeg2_where_it_can_be(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    frames = numbered_frames(6) ^ np.random.default_rng(0).integers(0, 32, (6, 64, 96, 3), dtype=np.uint8)
    source = write_video(tmp_path / "a.mkv", frames, codec="ffv1")
    transcode(source, tmp_path / "b.mp4", Recipe(**options))
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].codec_context.name == expected
    with open_video(source) as before, open_video(tmp_path / "b.mp4") as after:
        difference = (before.get_frames(range(6)).float() - after.get_frames(range(6)).float()).abs().mean()
    assert difference < 8


@pytest.mark.parametrize("crf", [17, 23, 31])
def test_mpeg2_of_a_quality_is_as_good_and_as_large_as_h264_of_it(tmp_path: Path, crf: int) -> None:
    source = make_footage(tmp_path / "a.mp4", height=256, width=340, num_frames=8)
    sizes, errors = [], []
    for codec in ("h264", "mpeg2"):
        made = tmp_path / f"{codec}.mp4"
        transcode(source, made, Recipe(keyframe_interval=1, crf=crf, codec=codec))
        sizes.append(made.stat().st_size)
        with open_video(source) as before, open_video(made) as after:
            errors.append((before.get_frames(range(8)).float() - after.get_frames(range(8)).float()).square().mean())
    assert 0.7 < sizes[1] / sizes[0] < 1.4
    assert 0.7 < errors[1] / errors[0] < 1.4


def test_b_frames_stand_only_where_they_are_asked_for(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered_frames(30))
    kinds = {}
    for bframes in (0, 2):
        transcode(source, tmp_path / "b.mp4", Recipe(bframes=bframes))
        with av.open(str(tmp_path / "b.mp4")) as container:
            kinds[bframes] = {PictureType(frame.pict_type).name for frame in container.decode(video=0)}
    assert kinds == {0: {"I", "P"}, 2: {"I", "P", "B"}}


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((240, 320), {}, (240, 320)),
        ((720, 1280), {}, (256, 456)),
        ((1280, 720), {}, (456, 256)),
        ((121, 161), {}, (120, 160)),
        ((120, 160), {"upscale": True}, (256, 342)),
        ((500, 500), {"short_side": 64}, (64, 64)),
    ],
)
def test_sizes_are_even_and_never_larger_unless_asked(
    size: tuple[int, int], options: dict[str, Any], expected: tuple[int, int]
) -> None:
    assert Recipe(**options).size_of(*size) == expected


@pytest.mark.parametrize("write", [*BAD.values(), write_in_part, write_hole])
def test_of_a_damaged_video_nothing_is_made(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    source = write(tmp_path / "bad.webm" if write is write_hole else tmp_path / "bad.mp4")
    with pytest.raises(VideoError, match=r"bad\.(mp4|webm): "):
        transcode(source, tmp_path / "made" / "a.mp4", SMALL)
    assert not any((tmp_path / "made").glob("*"))


def test_a_video_that_loses_a_frame_on_the_way_is_refused(tmp_path: Path) -> None:
    good = write_video(tmp_path / "a.mkv", numbered_frames(30), gop=10, bframes=0)
    source = remux(good, tmp_path / "b.mkv", lambda number, packet: [b"\0\0\0\1" if number == 15 else bytes(packet)])
    with pytest.raises(VideoError, match=r"b\.mkv"):
        transcode(source, tmp_path / "c.mp4", SMALL)
    assert not (tmp_path / "c.mp4").exists()


def test_an_older_result_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.mp4"
    transcode(write_video(tmp_path / "good.mp4", numbered_frames(10)), target, SMALL)
    before = target.read_bytes()
    with pytest.raises(VideoError):
        transcode(BAD["undecodable"](tmp_path / "bad.mp4"), target, SMALL)
    assert target.read_bytes() == before


def test_both_forms_are_timed(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "a.mp4", numbered_frames(10)))
    before, after = compare_decoding([(path, path), (path, path)])
    assert before > 0
    assert after > 0


def test_pixels_are_close_to_those_of_a_filtered_resize(tmp_path: Path) -> None:
    frames = numbered_frames(4, height=128, width=192)
    source = write_video(tmp_path / "a.mp4", frames, options={"crf": "4"})
    transcode(source, tmp_path / "b.mp4", Recipe(short_side=64, crf=4))
    with open_video(source) as before, open_video(tmp_path / "b.mp4") as after:
        old = before.get_frames(range(4)).permute(0, 3, 1, 2).float()
        new = after.get_frames(range(4)).permute(0, 3, 1, 2).float()
    expected = torch.nn.functional.interpolate(old, size=(64, 96), mode="bicubic", antialias=True)
    assert (new - expected).abs().mean() < 3


def test_a_full_disk_is_not_the_sources_fault(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered_frames(30))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(IwinError, match=r"made\.mp4: cannot be written \(File too large\)") as raised:
            transcode(source, tmp_path / "made.mp4", SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not isinstance(raised.value, VideoError)
    assert list(tmp_path.iterdir()) == [source]
