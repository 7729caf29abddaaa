"""The same numbers give the same frames, whatever decodes: compared with a plain decode of the whole file by PyAV.

PyAV is equal to the last bit. So is torchcodec's reader, which leaves to PyAV what torchcodec converts in another way.
"""

import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iwin.data.decode import Box, choose_decoder
from iwin.data.torchcodec import load_problem
from iwin.errors import VideoError
from tests.backends import read_frames, torchcodec_process
from tests.videos import decode_all, numbered_frames, read_number, remux, write_video

COUNT = 40
ORDERS = [[39, 3, 3, 20, 0], [0, 13, 26, 39], [11, 12, 13], [24], list(range(1, 40, 4)), [39, 38], list(range(40))]
OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:b-adapt=0"}
OPEN_GOP_265 = {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:keyint=12:min-keyint=12:bframes=3"}
VP9 = {"deadline": "realtime", "cpu-used": "8"}
UNEVEN = [t * 40 + t % 3 * 11 for t in range(COUNT)]

VIDEOS: dict[str, dict[str, Any]] = {
    "h264_bframes.mp4": {"bframes": 3},
    "h264_bframes.ts": {"bframes": 2},
    "h264_bframes.avi": {"bframes": 2},
    "h264_long_gop.mp4": {"gop": 250, "bframes": 3},
    "h264_open_gop.mp4": {"bframes": 3, "options": OPEN_GOP},
    "h264_interlaced.mp4": {"bframes": 2, "options": {"x264-params": "tff=1"}},
    "h264_10_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "h264_variable_rate.mp4": {"bframes": 2, "pts": UNEVEN},
    "h264_variable_rate.mkv": {"bframes": 2, "pts": UNEVEN},
    "h264_fragments.mp4": {"bframes": 2, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264_front.mp4": {"bframes": 2, "container_options": {"movflags": "faststart"}},
    "h264_rotated.mp4": {"rotation": 90},
    "h264_mirrored.mp4": {"rotation": 90, "hflip": True},
    "h264_2000_fps.mkv": {"fps": 2000},
    "h264_intra_refresh.mp4": {"bframes": 0, "options": {"x264-params": "intra-refresh=1:keyint=12"}},
    "hevc.mp4": {"codec": "libx265", "options": OPEN_GOP_265},
    "hevc_10_bit.mkv": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": OPEN_GOP_265},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9},
    "vp9_odd_sides.webm": {"codec": "libvpx-vp9", "options": VP9, "size": (63, 97)},
    "vp9_no_cues.webm": {"codec": "libvpx-vp9", "options": VP9, "container_options": {"live": "1"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "8", "crf": "10"}},
    "mpeg2_keyframes.mp4": {"codec": "mpeg2video", "gop": 1, "bframes": 0, "options": {"flags": "+low_delay"}},
    "mpeg2_bframes.mp4": {"codec": "mpeg2video", "bframes": 2},
    "mpeg4.avi": {"codec": "mpeg4", "bframes": 0},
    "mpeg4_bframes.avi": {"codec": "mpeg4", "bframes": 2},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8"},
}

BY_PYAV = {
    *("h264_bframes.ts", "h264_bframes.avi", "h264_interlaced.mp4", "h264_mirrored.mp4", "h264_2000_fps.mkv"),
    *("mpeg4.avi", "mpeg4_bframes.avi", "gif.gif", "h264_intra_refresh.mp4", "vp9_no_cues.webm"),
    *("h264_10_bit.mp4", "hevc_10_bit.mkv", "vp9_odd_sides.webm"),
}
"""What torchcodec's reader leaves to PyAV."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def torchcodec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessPoolExecutor]:
    with torchcodec_process(tmp_path_factory.mktemp("libraries")) as pool:
        yield pool


def video(folder: Path, name: str) -> Path:
    path, settings = folder / name, dict(VIDEOS[name])
    height, width = settings.pop("size", (64, 96))
    return path if path.exists() else write_video(path, numbered_frames(COUNT, height=height, width=width), **settings)


def shown(path: Path, name: str) -> torch.Tensor:
    """The plain decode, turned as the file asks for."""
    settings, frames = VIDEOS[name], decode_all(path)
    turned = torch.rot90(frames, settings.get("rotation", 0) // 90, (1, 2))
    return turned.flip(2) if settings.get("hflip") else turned


def check(frames: list[np.ndarray[Any, Any]], reference: torch.Tensor, orders: list[list[int]]) -> None:
    for order, found in zip(orders, frames, strict=True):
        expected = reference[order]
        assert found.shape == expected.shape, order
        assert np.array_equal(found, expected.numpy()), order


@pytest.mark.parametrize("name", VIDEOS)
def test_pyav_agrees(name: str, folder: Path) -> None:
    path = video(folder, name)
    reference = shown(path, name)
    count, _, frames = read_frames(str(path), ORDERS, decoder="pyav")
    assert count == len(reference) == COUNT
    check(frames, reference, ORDERS)
    if "rotation" not in VIDEOS[name]:
        assert [read_number(torch.from_numpy(frame)) for frame in frames[-1]] == list(range(COUNT))


@pytest.mark.parametrize("name", VIDEOS)
def test_torchcodec_agrees(name: str, folder: Path, torchcodec: ProcessPoolExecutor) -> None:
    path = video(folder, name)
    reference = shown(path, name)
    count, by_pyav, frames = torchcodec.submit(read_frames, str(path), ORDERS, decoder="torchcodec").result()
    assert count == COUNT
    assert by_pyav == (name in BY_PYAV)
    check(frames, reference, ORDERS)


@pytest.mark.parametrize("name", ["h264_bframes.mp4", "h264_rotated.mp4", "mpeg4.avi"])
def test_a_part_of_the_picture(name: str, folder: Path, torchcodec: ProcessPoolExecutor) -> None:
    path = video(folder, name)
    box = Box(5, 7, 31, 40)
    reference = shown(path, name)[:, 5:36, 7:47]
    for frames in (
        read_frames(str(path), ORDERS, decoder="pyav", box=box)[2],
        torchcodec.submit(read_frames, str(path), ORDERS, decoder="torchcodec", box=box).result()[2],
    ):
        check(frames, reference, ORDERS)


@pytest.mark.parametrize("cut", [5, 12, 25])
def test_frames_that_an_edit_list_cuts_do_not_count(cut: int, tmp_path: Path, torchcodec: ProcessPoolExecutor) -> None:
    path = write_video(tmp_path / "cut.mp4", numbered_frames(COUNT), bframes=2)
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12  # version and flags, entry count; then duration, media time
    duration, start = struct.unpack(">ii", data[entry : entry + 8])
    data[entry : entry + 8] = struct.pack(">ii", duration, start + cut * 512)  # 512 ticks a frame at 25 per second
    path.write_bytes(data)
    self_check(path, COUNT - cut, torchcodec)


def test_leading_pictures_of_a_cut_open_gop_do_not_count(tmp_path: Path, torchcodec: ProcessPoolExecutor) -> None:
    whole = write_video(tmp_path / "whole.mkv", numbered_frames(COUNT), bframes=3, options=OPEN_GOP)
    path = remux(whole, tmp_path / "cut.mkv", lambda number, packet: [packet] if number >= 12 else [])
    self_check(path, len(decode_all(path)), torchcodec)


def test_packets_without_a_keyframe_between_damaged_ones(tmp_path: Path, torchcodec: ProcessPoolExecutor) -> None:
    """What cannot be decoded is an error through either, what can is right."""
    whole = write_video(tmp_path / "whole.mkv", numbered_frames(COUNT), bframes=0)
    path = remux(whole, tmp_path / "bad.mkv", lambda number, p: [bytes(p.size) if number in (20, 21) else p])
    orders = [[0, 1], [39], [19], [30, 32], [5, 38]]
    for frames in (
        read_frames(str(path), orders, decoder="pyav")[2],
        torchcodec.submit(read_frames, str(path), orders, decoder="torchcodec").result()[2],
    ):
        assert [[read_number(torch.from_numpy(frame)) for frame in found] for found in frames] == orders
    with pytest.raises(VideoError, match="frame 20 cannot be decoded"):
        read_frames(str(path), [[19, 20]], decoder="pyav")
    with pytest.raises(VideoError, match="frame 20 cannot be decoded"):
        torchcodec.submit(read_frames, str(path), [[19, 20]], decoder="torchcodec").result()


def self_check(path: Path, count: int, torchcodec: ProcessPoolExecutor) -> None:
    """Both decoders give the plain decode's frames, of which there are `count`."""
    reference = decode_all(path)
    orders = [[i % count for i in order] for order in ORDERS]
    for found, _, frames in (
        read_frames(str(path), orders, decoder="pyav"),
        torchcodec.submit(read_frames, str(path), orders, decoder="torchcodec").result(),
    ):
        assert found == count == len(reference)
        check(frames, reference, orders)


# The choice.


def test_auto_says_what_it_chooses(torchcodec: ProcessPoolExecutor) -> None:
    decoder, line = choose_decoder("auto")
    assert decoder == "pyav"
    assert line is not None
    assert line.startswith("decoder: PyAV ")
    assert "\n" not in line
    decoder, line = torchcodec.submit(choose_decoder, "auto", device="cuda").result()
    assert decoder == "torchcodec"
    assert line is not None
    assert line.startswith("decoder: torchcodec ")
    assert torchcodec.submit(choose_decoder, "torchcodec").result() == ("torchcodec", None)


def test_what_is_chosen_outright_is_not_talked_about() -> None:
    assert choose_decoder("pyav") == ("pyav", None)


@pytest.mark.slow
def test_a_decoder_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)  # which makes its import fail
    monkeypatch.setattr("iwin.data.torchcodec.load_problem", load_problem.__wrapped__)
    problem = "it is not installed (pip install 'iwin[torchcodec]')"
    with pytest.raises(VideoError, match=r"the decoder torchcodec cannot be used: it .*; set decoder='pyav'"):
        choose_decoder("torchcodec")
    decoder, line = choose_decoder("auto", device="cuda")
    assert decoder == "pyav"
    assert line is not None
    assert line.endswith(problem)
