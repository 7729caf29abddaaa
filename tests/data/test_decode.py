"""Frame k is the k-th picture of a plain sequential decode, whatever the container, codec and timing."""

import os
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from iwin.data import pyav
from iwin.data.decode import Video, open_video
from iwin.errors import VideoError
from tests.videos import (
    Packet,
    Packets,
    decode_all,
    numbered_frames,
    packet_like,
    read_number,
    remux,
    write_audio,
    write_video,
)

COUNT = 40
OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:b-adapt=0"}
OPEN_GOP_265 = {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:keyint=12:min-keyint=12:bframes=3"}

VIDEOS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264_bframes.mp4": {"bframes": 3},
    "h264_bframes.mkv": {"bframes": 3},
    "h264_bframes.mov": {"bframes": 3},
    "h264_bframes.avi": {"bframes": 2},  # FFmpeg guesses presentation times, wrongly
    "h264_bframes.ts": {"bframes": 2},  # no frame count, times start late
    "h264_bframes.h264": {"bframes": 2},  # no times, no frame count, no seeking
    "h264_long_gop.mp4": {"gop": 250, "bframes": 3},
    "h264_open_gop.mp4": {"bframes": 3, "options": OPEN_GOP},
    "h264_open_gop.mkv": {"bframes": 3, "options": OPEN_GOP},
    "h264_intra_refresh.mp4": {"bframes": 0, "options": {"x264-params": "intra-refresh=1:keyint=12"}},
    "h264_interlaced.mp4": {"bframes": 2, "options": {"x264-params": "tff=1"}},
    "h264_bframes.flv": {"bframes": 2},
    "h264_2000_fps.mkv": {"fps": 2000},  # Matroska rounds to milliseconds: two frames share a time
    "h264_10_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "h264_444.mkv": {"pix_fmt": "yuv444p"},
    "h264_sound.mp4": {"audio": True},
    "h264_sound.mkv": {"audio": True},
    "h264_fragments.mp4": {"bframes": 2, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264_variable_rate.mp4": {"bframes": 2, "pts": [t * 40 + t % 3 * 11 for t in range(COUNT)]},
    "hevc_open_gop.mp4": {"codec": "libx265", "options": OPEN_GOP_265},
    "hevc_open_gop.mkv": {"codec": "libx265", "options": OPEN_GOP_265},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "8", "crf": "10"}},
    "mpeg4.avi": {"codec": "mpeg4", "bframes": 0},
    "mpeg4_bframes.avi": {"codec": "mpeg4", "bframes": 2},
    "mpeg4_bframes.mkv": {"codec": "mpeg4", "bframes": 2},
    "mpeg4_gaps.avi": {"codec": "mpeg4", "bframes": 0, "pts": [t * 40 + 200 * (t > 20) for t in range(COUNT)]},
    "mpeg2.mpg": {"codec": "mpeg2video", "bframes": 2},  # seeks land anywhere
    "mpeg2.ts": {"codec": "mpeg2video", "bframes": 2},
    "mpeg2_short_gop.ts": {"codec": "mpeg2video", "bframes": 2, "gop": 3},  # seeks by time land a keyframe too late
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "wmv.wmv": {"codec": "wmv2"},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "ffv1.mkv": {"codec": "ffv1"},
}

MPEG4_STUB = bytes([0, 0, 1, 0xB6, 0b01010000, 0, 0, 0x7F])
"""A P picture whose flag "coded" is 0: nothing comes out."""

# From the end to the start, over keyframes, with repeats, far apart, side by side, alone.
ORDERS = ([39, 3, 3, 20, 0], [0, 13, 26, 39], [11, 12, 13], [24], [5, 30], range(1, 40, 4), [39, 38], [23], [37])


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("videos")

    def video(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_video(path, numbered_frames(COUNT), **VIDEOS[name])

    return video


@pytest.fixture(autouse=True)
def eager_seeks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny videos are worth no seek; this makes them worth it."""
    monkeypatch.setattr(pyav, "_SEEK_GAIN", 2)


def assert_same_frames(path: Path, reference: torch.Tensor | None = None) -> None:
    """Every access order gives the pictures of the plain decode, to the last bit."""
    if reference is None:
        reference = decode_all(path)
    count = len(reference)
    with open_video(path) as video:
        assert video.num_frames == count
        assert (video.height, video.width) == reference.shape[1:3]
        for order in ([i % count for i in order] for order in ORDERS):
            frames = video.get_frames(order)
            assert frames.dtype == torch.uint8
            assert frames.is_contiguous()
            assert torch.equal(frames, reference[order]), order
        assert torch.equal(video.get_frames(range(count)), reference)
    for alone in (count - 1, count // 2):
        with open_video(path) as video:
            assert torch.equal(video.get_frames([alone]), reference[[alone]])


def numbers(video: Video) -> list[int]:
    return [read_number(frame) for frame in video.get_frames(range(video.num_frames))]


def index_of(video: Video) -> Any:
    """The index of the reader behind a video."""
    return video._reader._index  # type: ignore[attr-defined]


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
    monkeypatch.setattr(pyav.PyAVReader, "_reopen", _count_calls(restarts, pyav.PyAVReader._reopen))
    with open_video(videos(name)) as video:
        for order in ORDERS:
            video.get_frames(order)
        assert index_of(video).keyframes
    assert not restarts


def test_interlaced_h264_is_counted_by_decoding(videos: Callable[[str], Path], monkeypatch: Any) -> None:
    """Its fields may come in packets of their own, though not from the encoder at hand."""
    work = Work(monkeypatch)
    with open_video(videos("h264_interlaced.mp4")):
        assert work.decoded >= COUNT


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


# No more work than needed.


class Work:
    """Counts packets that are decoded and pictures that are converted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded = self.converted = 0
        feed, convert = pyav.PyAVReader._feed, pyav.PyAVReader._convert

        def counting_feed(reader: pyav.PyAVReader, packet: Any) -> Any:
            self.decoded += packet is not None
            return feed(reader, packet)

        def counting_convert(reader: pyav.PyAVReader, picture: Any, number: int) -> Any:
            self.converted += 1
            return convert(reader, picture, number)

        monkeypatch.setattr(pyav.PyAVReader, "_feed", counting_feed)
        monkeypatch.setattr(pyav.PyAVReader, "_convert", counting_convert)


def test_only_what_is_wanted_is_decoded_and_converted(videos: Callable[[str], Path], monkeypatch: Any) -> None:
    with open_video(videos("h264_bframes.mkv")) as video:  # keyframes at 0, 12, 24, 36
        work = Work(monkeypatch)
        video.get_frames([37, 1, 37])
    assert work.converted == 2
    assert work.decoded <= 12  # two runs of two frames, and the look-ahead that reordering takes


def test_reading_on_decodes_nothing_twice(videos: Callable[[str], Path], monkeypatch: Any) -> None:
    path = videos("h264_long_gop.mp4")
    with open_video(path) as video:
        work = Work(monkeypatch)
        windows = [video.get_frames(range(start, start + 10, 3)) for start in range(0, 40, 10)]
    assert work.decoded == COUNT
    reference = decode_all(path)
    assert all(torch.equal(w, reference[10 * i : 10 * i + 10 : 3]) for i, w in enumerate(windows))


def test_near_frames_are_read_without_a_seek(videos: Callable[[str], Path], monkeypatch: Any) -> None:
    monkeypatch.setattr(pyav, "_SEEK_GAIN", 12)
    jumps: list[None] = []
    monkeypatch.setattr(pyav.PyAVReader, "_jump", _count_calls(jumps, pyav.PyAVReader._jump))
    with open_video(videos("mjpeg.avi")) as video:
        video.get_frames(range(0, 40, 8))
    assert len(jumps) == 1


def test_intervals_without_a_wanted_frame_are_passed_over(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(pyav, "_SEEK_GAIN", 12)
    path = write_video(tmp_path / "intra.mp4", numbered_frames(COUNT), gop=1)
    with open_video(path) as video:
        work = Work(monkeypatch)
        frames = video.get_frames(range(1, 40, 4))
        assert work.decoded == 10
        assert torch.equal(frames, decode_all(path)[1:40:4])
        assert torch.equal(video.get_frames([2, 6, 5]), decode_all(path)[[2, 6, 5]])


def test_unreferenced_pictures_are_skipped_and_can_still_be_had(videos: Callable[[str], Path]) -> None:
    path = videos("h264_bframes.mkv")
    reference = decode_all(path)
    with open_video(path) as video:
        assert torch.equal(video.get_frames([0, 11]), reference[[0, 11]])
        skipped = sorted(video._reader._skipped)  # type: ignore[attr-defined]
        assert len(skipped) >= 3
        assert torch.equal(video.get_frames(skipped), reference[skipped])


def test_a_read_that_broke_off_leaves_nothing_skipped(videos: Callable[[str], Path], monkeypatch: Any) -> None:
    path = videos("h264_bframes.mkv")
    with open_video(path) as video:
        for stop in range(1, 10):
            with monkeypatch.context() as patch:
                patch.setattr(pyav.PyAVReader, "_convert", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    video.get_frames([stop, 11])
            assert torch.equal(video.get_frames(range(stop + 1, 11)), decode_all(path)[stop + 1 : 11])


def test_counting_skips_nothing(videos: Callable[[str], Path]) -> None:
    """What happens when pictures do not come as foretold, even after the seeking has stopped."""
    path = videos("h264_bframes.mkv")
    with open_video(path) as video:
        reader: Any = video._reader
        video.get_frames([0, 39])
        reader._distrust()
        reader._distrust()
        assert index_of(video).times is None
        assert numbers(video) == list(range(COUNT))


def _count_calls(calls: list[None], function: Callable[..., Any]) -> Callable[..., Any]:
    def counting(*args: Any) -> Any:
        calls.append(None)
        return function(*args)

    return counting


# Damaged files.


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Packets 20 and 21 are nothing but zeros."""
    return remux(
        write_video(tmp_path / "good.mkv", numbered_frames(COUNT), bframes=0),
        tmp_path / "damaged.mkv",
        lambda number, packet: [bytes(packet.size) if number in (20, 21) else packet],
    )


def test_frames_around_a_damage_keep_their_numbers(damaged: Path) -> None:
    with open_video(damaged) as video:
        assert video.num_frames == COUNT
        for wanted in ([0, 1], [39], [19], [30, 32], [5, 38]):
            assert [read_number(frame) for frame in video.get_frames(wanted)] == wanted
        with pytest.raises(VideoError, match=r"damaged\.mkv: frame 20 cannot be decoded \(Invalid data.*re-encode"):
            video.get_frames([19, 20])
        for wanted in ([0, 1], [39], [19], [30, 32], [5, 38]):
            assert [read_number(frame) for frame in video.get_frames(wanted)] == wanted


def test_flipped_bits_neither_crash_nor_print(videos: Callable[[str], Path], tmp_path: Path, capfd: Any) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped.mp4"
    for name in ("h264_bframes.mp4", "h264_bframes.ts", "mpeg4.avi", "vp9.webm", "gif.gif"):
        good = np.frombuffer(videos(name).read_bytes(), np.uint8)
        for _ in range(15):
            data = good.copy()
            data[rng.integers(len(data) // 10, len(data), 5)] = rng.integers(0, 256, 5)
            path.write_bytes(data.tobytes())
            try:
                with open_video(path) as video:
                    for index in (video.num_frames - 1, 0, video.num_frames // 2):
                        assert video.get_frames([min(index, video.num_frames - 1)]).shape[1:] == (
                            video.height,
                            video.width,
                            3,
                        )
            except VideoError:
                pass
    assert capfd.readouterr().err == ""


def test_a_truncated_file_gives_what_is_left(tmp_path: Path) -> None:
    """The header still promises 40 frames."""
    options = {"movflags": "faststart"}
    whole = write_video(tmp_path / "whole.mp4", numbered_frames(COUNT), bframes=0, container_options=options)
    path = tmp_path / "truncated.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == COUNT
    with open_video(path) as video:
        count = video.num_frames
        assert 5 < count < COUNT
        assert [read_number(frame) for frame in video.get_frames(range(count - 1))] == list(range(count - 1))
        with pytest.raises(VideoError, match=rf"there is no frame {count}; ask for frames from 0 to {count - 1}"):
            video.get_frames([count])


@pytest.mark.parametrize("bad", [-1, COUNT])
def test_a_frame_outside_the_video(bad: int, videos: Callable[[str], Path]) -> None:
    with (
        open_video(videos("h264.mp4")) as video,
        pytest.raises(VideoError, match=rf"there is no frame {bad}; ask for frames from 0 to 39"),
    ):
        video.get_frames([0, bad])


# What is no video.


def _bad_files(folder: Path) -> Iterator[tuple[Path, str]]:
    (folder / "empty.mp4").touch()
    yield folder / "empty.mp4", "the file is empty"
    (folder / "text.mp4").write_text("not a video\n" * 100)
    yield folder / "text.mp4", "not a video that can be read"
    (folder / "noise.avi").write_bytes(np.random.default_rng(0).bytes(5000))
    yield folder / "noise.avi", "not a video that can be read"
    whole = write_video(folder / "whole.mp4", numbered_frames(10))
    (folder / "half.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    yield folder / "half.mp4", "not a video that can be read"
    yield write_audio(folder / "sound.mp4"), "holds no video"
    yield remux(whole, folder / "dead.mkv", lambda _, packet: [bytes(packet.size)]), "no frame can be decoded"
    yield folder / "missing.mp4", "no such file"
    yield folder, "a folder"
    os.mkfifo(folder / "pipe.mp4")
    yield folder / "pipe.mp4", "a pipe or a device"


@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "mpeg4_bframes.avi", "h264_bframes.ts", "gif.gif"])
def test_a_wrong_ending_changes_nothing(name: str, videos: Callable[[str], Path], tmp_path: Path) -> None:
    for ending in (".mp4", ".avi", ".mkv", ""):
        path = tmp_path / f"clip{ending}"
        path.write_bytes(videos(name).read_bytes())
        with open_video(path) as video:
            assert numbers(video) == list(range(COUNT))


def test_what_is_no_video_is_refused_in_one_sentence_and_closed(tmp_path: Path) -> None:
    for path, reason in _bad_files(tmp_path):
        open_files = len(list(Path("/dev/fd").iterdir()))
        with pytest.raises(VideoError) as caught:
            open_video(path)
        assert str(caught.value).startswith(f"{path}: "), path
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(list(Path("/dev/fd").iterdir())) == open_files, path


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(numbered_frames(1, width=64)[0], format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        container.mux(cover.encode(frame))
        container.mux(cover.encode(None))
    with pytest.raises(VideoError, match="holds no video"):
        open_video(path)


def test_a_title_that_is_no_utf8_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "title.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "caf__"
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frames(1)[0], format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"caf__", b"caf\xe9\xff"))
    with open_video(path) as video:
        assert video.num_frames == 1


def test_closing(videos: Callable[[str], Path]) -> None:
    open_files = len(list(Path("/dev/fd").iterdir()))
    video = open_video(videos("h264.mp4"))
    video.get_frames([0])
    video.close()
    video.close()
    assert len(list(Path("/dev/fd").iterdir())) == open_files
    with pytest.raises(VideoError, match="is closed; open it again"):
        video.get_frames([0])


def test_an_unknown_decoder(videos: Callable[[str], Path]) -> None:
    with pytest.raises(VideoError, match="no decoder 'decord'; choose one of: auto, pyav, torchcodec"):
        open_video(videos("h264.mp4"), decoder="decord")  # type: ignore[arg-type]


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", numbered_frames(4))
    (tmp_path / "b.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    with pytest.raises(VideoError, match=r"b\.mp4: a list of other files"):
        open_video(tmp_path / "b.mp4")
