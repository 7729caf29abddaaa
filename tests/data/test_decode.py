"""Frame k is the k-th picture of a plain sequential decode, whatever the container, codec and timing."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from iwin.data import pyav
from iwin.data.decode import open_video
from iwin.errors import VideoError
from tests.data.decoding import (
    COUNT,
    OPEN_GOP,
    OPEN_GOP_265,
    ORDERS,
    VIDEOS,
    assert_same_frames,
    count_calls,
    index_of,
    numbers,
)
from tests.videos import (
    Packet,
    Packets,
    decode_all,
    numbered_frames,
    packet_like,
    read_number,
    remux,
    write_video,
)

pytestmark = pytest.mark.usefixtures("eager_seeks")

MPEG4_STUB = bytes([0, 0, 1, 0xB6, 0b01010000, 0b01001111])
"""A P picture whose flag "coded" is 0: nothing comes out."""


def _packets(path: Path) -> list[Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(container.streams.video[0]) if packet.size]


def _vop_type(data: bytes) -> int:
    """The kind of an MPEG-4 picture: 0 I, 1 P, 2 B."""
    return data[data.index(b"\0\0\1\xb6") + 4] >> 6


# Every kind of file.


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_are_those_of_a_plain_decode(name: str, videos: Callable[[str], Path]) -> None:
    path = videos(name)
    assert_same_frames(path)
    with open_video(path) as video:
        assert numbers(video) == list(range(COUNT))


@pytest.mark.parametrize("name", VIDEOS)
def test_passing_keyframe_intervals_over_gives_the_same_frames(
    name: str, videos: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyav, "_SEEK_GAIN", 100)  # never seek forwards
    assert_same_frames(videos(name))


@pytest.mark.parametrize("name", ["h264_bframes.mp4", "h264_bframes.mkv", "hevc_open_gop.mp4", "vp9.webm", "mpeg4.avi"])
def test_usual_files_are_indexed_without_decoding(name: str, videos: Callable[[str], Path]) -> None:
    with open_video(videos(name)) as video:
        assert len(index_of(video).times) == COUNT
        assert len(index_of(video).keyframes) >= 2


@pytest.mark.parametrize("name", ["h264_bframes.avi", "h264_bframes.h264", "h264_2000_fps.mkv", "mpeg4_bframes.avi"])
def test_frames_without_times_of_their_own_are_counted(name: str, videos: Callable[[str], Path]) -> None:
    with open_video(videos(name)) as video:
        assert index_of(video).times is None


@pytest.mark.parametrize(
    ("name", "fps", "duration"),
    [
        ("h264_bframes.mp4", 25, 1.6),
        ("h264_bframes.mkv", 25, 1.6),
        ("h264_bframes.ts", 25, 1.6),
        ("h264_bframes.h264", 25, 1.6),
        ("mpeg4_bframes.avi", 25, 1.6),
        ("mpeg4_gaps.avi", 40 / 1.805, 1.805),
        ("gif.gif", 25, 1.6),
    ],
)
def test_rate_and_duration(name: str, fps: float, duration: float, videos: Callable[[str], Path]) -> None:
    with open_video(videos(name)) as video:
        assert video.fps == pytest.approx(fps, rel=1e-3)
        assert video.duration == pytest.approx(duration, rel=1e-3)


def test_a_video_of_one_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.mp4", numbered_frames(1, first=7))
    with open_video(path) as video:
        assert (video.num_frames, video.fps) == (1, 25.0)
        assert [read_number(frame) for frame in video.get_frames([0, 0, 0])] == [7, 7, 7]


@pytest.mark.parametrize("name", ["h264_open_gop.mp4", "h264_open_gop.mkv", "hevc_open_gop.mp4", "h264_bframes.ts"])
def test_far_frames_are_reached_by_seeking(name: str, videos: Callable[[str], Path], monkeypatch: Any) -> None:
    restarts: list[None] = []
    monkeypatch.setattr(pyav.PyAVReader, "_reopen", count_calls(restarts, pyav.PyAVReader._reopen))
    with open_video(videos(name)) as video:
        for order in ORDERS:
            video.get_frames(order)
        assert index_of(video).keyframes
    assert not restarts


def test_threads_change_nothing(videos: Callable[[str], Path]) -> None:
    path = videos("h264_bframes.mp4")
    with open_video(path, num_threads=4) as video:
        assert torch.equal(video.get_frames([30, 5, 39]), decode_all(path)[[30, 5, 39]])


# Files whose packets are not their frames.


@pytest.mark.parametrize("cut", [5, 12, 25])
def test_frames_that_an_edit_list_cuts_do_not_count(cut: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "cut.mp4", numbered_frames(COUNT), bframes=2)
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12  # version and flags, entry count; then duration, media time
    duration, start = struct.unpack(">ii", data[entry : entry + 8])
    data[entry : entry + 8] = struct.pack(">ii", duration, start + cut * 512)  # 512 ticks a frame at 25 per second
    path.write_bytes(data)
    assert_same_frames(path)
    with open_video(path) as video:
        assert numbers(video) == list(range(cut, COUNT))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_leading_pictures_of_a_cut_open_gop_do_not_count(codec: str, tmp_path: Path) -> None:
    options = OPEN_GOP if codec == "libx264" else OPEN_GOP_265
    whole = write_video(tmp_path / "whole.mkv", numbered_frames(COUNT), codec=codec, bframes=3, options=options)
    keyframes = [number for number, packet in enumerate(_packets(whole)) if packet.is_keyframe]
    path = remux(whole, tmp_path / "cut.mkv", lambda number, packet: [packet] if number >= keyframes[1] else [])
    assert len(_packets(path)) > len(decode_all(path))
    assert_same_frames(path)


def test_leading_pictures_of_a_cut_avi_do_not_count(tmp_path: Path) -> None:
    frames = numbered_frames(COUNT, height=128, width=192)
    whole = write_video(tmp_path / "whole.avi", frames, codec="mpeg4", bframes=2)
    second = [number for number, packet in enumerate(_packets(whole)) if packet.is_keyframe][1]
    path = remux(whole, tmp_path / "cut.avi", lambda number, packet: [bytes(packet)] if number >= second else [])
    assert min(packet.size for packet in _packets(path)) >= 20  # none that looks like a stub
    assert len(_packets(path)) > len(decode_all(path))
    assert_same_frames(path)


def test_stubs_for_dropped_mpeg4_frames_do_not_count(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", numbered_frames(COUNT), codec="mpeg4", bframes=1)
    is_b = [_vop_type(bytes(packet)) == 2 for packet in _packets(whole)]
    path = remux(whole, tmp_path / "stubs.avi", lambda number, packet: [MPEG4_STUB if is_b[number] else packet])
    assert len(_packets(path)) == COUNT > len(decode_all(path))
    assert_same_frames(path)


def test_hidden_vp8_pictures_do_not_count(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.webm", numbered_frames(COUNT), codec="libvpx", gop=20)

    def hide(number: int, packet: Packet) -> Packets:
        data = bytes(packet)
        return [bytes([data[0] & ~0x10]) + data[1:] if number % 7 == 3 else data]

    path = remux(whole, tmp_path / "hidden.webm", hide)
    assert len(decode_all(path)) < COUNT
    assert_same_frames(path)


def test_hidden_vp9_pictures_do_not_count(tmp_path: Path) -> None:
    options = {"deadline": "realtime", "cpu-used": "8"}
    whole = write_video(tmp_path / "whole.webm", numbered_frames(COUNT), codec="libvpx-vp9", gop=10, options=options)

    def hide(_: int, packet: Packet) -> Packets:
        data = bytes(packet)
        if not packet.is_keyframe:
            return [data]
        # The keyframe is stored unseen; a packet of one byte, "show slot 0", brings it out.
        return [bytes([data[0] & ~0b10]) + data[1:], packet_like(packet, b"\x88", delay=15)]

    path = remux(whole, tmp_path / "hidden.webm", hide)
    assert len(_packets(path)) > len(decode_all(path)) == COUNT
    assert_same_frames(path)


def test_packed_mpeg4_frames(tmp_path: Path) -> None:
    """DivX stores a P and the B before it in one packet, followed by a stub."""
    whole = write_video(tmp_path / "whole.avi", numbered_frames(COUNT), codec="mpeg4", bframes=1)
    data = [bytes(packet) for packet in _packets(whole)]
    is_b = [_vop_type(d) == 2 for d in data] + [False]
    data[0] = data[0].replace(b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p\0\0\1\xb6", 1)

    def pack(number: int, _: Packet) -> Packets:
        return [MPEG4_STUB if is_b[number] else data[number] + (data[number + 1] if is_b[number + 1] else b"")]

    assert_same_frames(remux(whole, tmp_path / "packed.avi", pack))


def test_streams_joined_end_to_end(tmp_path: Path) -> None:
    """Times start anew in the middle."""
    parts = [write_video(tmp_path / f"{i}.ts", numbered_frames(20, first=20 * i), bframes=2) for i in range(2)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert_same_frames(path)
    with open_video(path) as video:
        assert numbers(video) == list(range(40))


def test_a_picture_size_that_changes_midway_is_scaled_to_the_first(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.ts", numbered_frames(20))
    large = write_video(tmp_path / "large.ts", numbered_frames(20, first=20, height=128, width=160))
    path = tmp_path / "joined.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with open_video(path) as video:
        assert video.get_frames([0, 30]).shape == (2, 64, 96, 3)
        assert numbers(video) == list(range(40))


def test_a_foretold_picture_that_does_not_come_stops_seeking(videos: Callable[[str], Path]) -> None:
    """After a seek, intra refresh needs some frames to recover: the keyframe itself never comes out."""
    path = videos("h264_intra_refresh.mp4")
    with open_video(path) as video:
        assert index_of(video).keyframes
        assert torch.equal(video.get_frames([39]), decode_all(path)[[39]])
        assert not index_of(video).keyframes


# What a player does to the picture.


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_and_mirror(rotation: int, hflip: bool, tmp_path: Path) -> None:
    path = write_video(tmp_path / "turned.mp4", numbered_frames(3), rotation=rotation, hflip=hflip)
    expected = torch.rot90(decode_all(path), rotation // 90, (1, 2))  # rot90 of rows and columns is counter-clockwise
    assert_same_frames(path, expected.flip(2) if hflip else expected)


def test_a_phone_held_upright(tmp_path: Path) -> None:
    """The bytes that phones write: the sensor lies on its side, and the player turns the picture clockwise."""
    scene = np.zeros((3, 64, 96, 3), np.uint8)
    scene[:, :, :48] = (0, 0, 220)  # what the sensor has at its left is up: blue sky
    scene[:, :, 48:] = (0, 220, 0)  # and at its right down: grass
    scene[:, :32, 48:] = (220, 0, 0)  # at its top right is the bottom right: a red flower
    path = write_video(tmp_path / "phone.mp4", scene)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    upright = (0, 1 << 16, 0, -1 << 16, 0, 0, 64 << 16, 0, 1 << 30)
    assert struct.unpack(">9i", data[matrix : matrix + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", *upright)
    path.write_bytes(data)
    with open_video(path) as video:
        assert (video.height, video.width) == (96, 64)
        picture = video.get_frames([1])[0]
    assert picture[20, 32].argmax() == 2  # sky above
    assert picture[80, 16].argmax() == 1  # grass at the left below
    assert picture[80, 48].argmax() == 0  # flower at the right below


@pytest.mark.parametrize(("colorspace", "full"), [(1, False), (5, False), (5, True)])
def test_the_stated_colour_matrix_and_range_are_honoured(colorspace: int, full: bool, tmp_path: Path) -> None:
    """Y, Cb, Cr are written by hand; the weights are those of BT.709 (1) and BT.601 (5)."""
    red_weight, blue_weight = (0.2126, 0.0722) if colorspace == 1 else (0.299, 0.114)
    y, cb, cr = 100.0, 140.0, 170.0
    luma, chroma = (y, 1.0) if full else ((y - 16) * 255 / 219, 255 / 224)
    red = luma + 2 * (1 - red_weight) * chroma * (cr - 128)
    blue = luma + 2 * (1 - blue_weight) * chroma * (cb - 128)
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    path = tmp_path / "colour.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, 2 if full else 1
        planes = np.concatenate([np.full(32 * 32, y), np.full(16 * 16, cb), np.full(16 * 16, cr)]).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(planes.reshape(48, 32), format="yuv420p")
        frame.colorspace, frame.color_range = colorspace, 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_video(path) as video:
        pixel = video.get_frames([0])[0, 16, 16].float()
    assert torch.allclose(pixel, torch.tensor([red, green, blue]), atol=3)


def test_colours_that_cannot_be_converted_are_named(tmp_path: Path) -> None:
    path = tmp_path / "colour.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.colorspace = 8  # YCgCo, which the converter does not take
        frame = av.VideoFrame.from_ndarray(numbered_frames(1)[0], format="rgb24").reformat(format="yuv420p")
        frame.colorspace = 8
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with (
        open_video(path) as video,
        pytest.raises(VideoError, match=r"colour\.mkv: frame 0 cannot be decoded \(no way to RGB"),
    ):
        video.get_frames([0])
