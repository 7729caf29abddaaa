"""What the header says of the packets is what reading them says; where it cannot know, it is silent."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from iwin.data import pyav
from iwin.data.decode import open_video
from iwin.data.packet_table import Entry, read_table
from iwin.errors import VideoError
from tests.videos import decode_all, numbered_frames, write_video

COUNT = 40
UNEVEN = [t * 40 + t % 3 * 11 for t in range(COUNT)]

TOLD: dict[str, dict[str, Any]] = {
    "plain.mp4": {"bframes": 0},
    "intra.mp4": {"gop": 1},
    "bframes.mp4": {"bframes": 3},
    "bframes.mov": {"bframes": 3},
    "uneven.mp4": {"bframes": 2, "pts": UNEVEN},
    "uneven_plain.mp4": {"bframes": 0, "pts": UNEVEN},
    "negative_delays.mp4": {"bframes": 2, "container_options": {"movflags": "negative_cts_offsets"}},
    "faststart.mp4": {"bframes": 2, "container_options": {"movflags": "faststart"}},
    "sound.mp4": {"bframes": 2, "audio": True},
    "hevc.mp4": {"codec": "libx265"},
    "mpeg2.mp4": {"codec": "mpeg2video", "gop": 1, "bframes": 0, "options": {"flags": "+low_delay"}},
    "mpeg2_bframes.mov": {"codec": "mpeg2video", "bframes": 2},
}

UNTOLD: dict[str, dict[str, Any]] = {
    "empty_header.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "first_part_in_header.mp4": {"container_options": {"movflags": "frag_keyframe"}},
    "matroska.mkv": {},
    "vp9.mp4": {"codec": "libvpx-vp9"},
    "mpeg4.mp4": {"codec": "mpeg4"},
}


def written(folder: Path, name: str, options: dict[str, Any]) -> Path:
    return write_video(folder / name, numbered_frames(COUNT), **options)


def tables(path: Path) -> tuple[list[Entry] | None, list[Entry]]:
    """The packets by the header, and as they are read."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
    with av.open(str(path)) as container, path.open("rb") as file:
        stream = container.streams.video[0]
        told = read_table(file, stream, next(container.demux(stream)))
    return told, [Entry(packet.pts, packet.dts, packet.is_keyframe) for packet in packets]


def changed(path: Path, box: bytes, offset: int, value: int) -> Path:
    """The file with one 32-bit number changed, so many bytes behind the name of a box."""
    data = bytearray(path.read_bytes())
    struct.pack_into(">i", data, data.index(box) + 4 + offset, value)
    path.write_bytes(data)
    return path


def assert_frames_are_exact(path: Path, reference: torch.Tensor | None = None) -> None:
    reference = decode_all(path) if reference is None else reference
    with open_video(path) as video:
        assert video.num_frames == len(reference)
        for order in ([30, 2, 17], [11, 12, 13], range(len(reference))):
            assert torch.equal(video.get_frames(order), reference[[*order]])


@pytest.mark.parametrize("name", TOLD)
def test_the_header_tells_what_the_packets_tell(name: str, tmp_path: Path) -> None:
    told, read = tables(written(tmp_path, name, TOLD[name]))
    assert told == read


@pytest.mark.parametrize("name", UNTOLD)
def test_where_the_header_cannot_know_it_is_silent(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, name, UNTOLD[name])
    assert tables(path)[0] is None
    assert_frames_are_exact(path)


def test_an_edit_list_that_cuts(tmp_path: Path) -> None:
    path = written(tmp_path, "cut.mp4", {"bframes": 2})
    assert tables(changed(path, b"elst", 12, 1024 + 12 * 512))[0] is None  # 512 ticks a frame


@pytest.mark.parametrize("lost", [1, 500])
def test_a_file_that_is_cut_off(lost: int, tmp_path: Path) -> None:
    path = written(tmp_path, "cut.mp4", {"container_options": {"movflags": "faststart"}})
    path.write_bytes(path.read_bytes()[:-lost])
    assert tables(path)[0] is None


@pytest.mark.parametrize(
    ("box", "offset"),
    [(b"ctts", 4), (b"ctts", 8), (b"ctts", -8), (b"stbl", -8), (b"tkhd", 12), (b"tkhd", -8), (b"ctts", -4)],
    ids=["runs", "length", "size", "table size", "track", "track size", "name"],
)
@pytest.mark.parametrize("value", [0, 1, -1, 2**30])
def test_a_damaged_header_never_gives_a_wrong_frame(box: bytes, offset: int, value: int, tmp_path: Path) -> None:
    path = changed(written(tmp_path, "damaged.mp4", {"bframes": 2}), box, offset, value)
    try:
        reference = decode_all(path)
    except (av.FFmpegError, IndexError, ValueError):  # no video, or no picture in it
        with pytest.raises(VideoError):
            open_video(path)
    else:
        assert_frames_are_exact(path, reference)


def test_a_wrong_promise_costs_time_but_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a file that hides that its pictures are reordered: decoding times taken for presentation times."""
    path = written(tmp_path, "hidden.mp4", {"bframes": 3, "pts": UNEVEN})

    def decoding_times(*args: Any) -> list[Entry]:
        return [Entry(entry.dts, entry.dts, entry.is_keyframe) for entry in read_table(*args) or []]

    monkeypatch.setattr(pyav, "read_table", decoding_times)
    monkeypatch.setattr(pyav.PyAVReader, "_build_index", _trusting)
    assert_frames_are_exact(path)


def _trusting(_: pyav.PyAVReader, entries: list[Entry], __: bool) -> Any:
    times = sorted(entry.pts for entry in entries if entry.pts is not None)
    return pyav._Index.of_times(times, entries)


def test_no_packet_but_the_first_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "plain.mp4", {"bframes": 2})
    passed: list[None] = []
    read: Callable[..., Any] = pyav.PyAVReader._packets

    def counting(reader: pyav.PyAVReader) -> Any:
        for packet in read(reader):
            passed.append(None)
            yield packet

    monkeypatch.setattr(pyav.PyAVReader, "_packets", counting)
    with open_video(path) as video:
        assert video.num_frames == COUNT
    assert len(passed) == 1


def test_the_table_is_read_from_a_part_of_another_file_too(tmp_path: Path) -> None:
    path = written(tmp_path, "part.mp4", {"bframes": 2})
    with path.open("rb") as file:
        reader = pyav.PyAVReader("part", file=file)
        try:
            assert torch.equal(reader.read([30, 2]), decode_all(path)[[30, 2]])
        finally:
            reader.close()
