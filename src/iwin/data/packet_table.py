"""When the packets of an MP4 or MOV file are shown, from its header alone: no packet is read.

FFmpeg tells place, size and decoding time of every packet when it opens such a file. What it keeps to itself is how
much later each is shown, which the box "ctts" holds (ISO/IEC 14496-12, 8.6.1.3); that one is read here.
"""

import os
import struct
from collections.abc import Iterator
from operator import add, attrgetter
from typing import BinaryIO, NamedTuple

import av
import numpy as np

_CODECS = ("h264", "hevc", "mpeg2video")
"""Those that put out one picture for each packet and whose packets FFmpeg does not cut anew."""

_COLUMNS = ("size", "pos", "timestamp", "is_discard", "is_keyframe")

_LARGEST = 2**26
"""Bytes of a header: beyond that it is damaged, or reading it costs more than it spares."""


class Entry(NamedTuple):
    """One packet that holds a picture, in decoding order; times are in the stream's time base."""

    pts: int | None
    dts: int | None
    is_keyframe: bool


def read_table(file: BinaryIO, stream: av.VideoStream, first: "av.Packet[av.VideoStream]") -> list[Entry] | None:
    """The packets of a video stream.

    Args:
        file: the file; where it stands changes.
        stream: the stream, just opened.
        first: the packet that is read first.

    Returns:
        Every packet, or None where the header does not tell: other containers and codecs, fragments, edit lists that
        cut, a file that is cut off, a damaged header.
    """
    if stream.codec_context.name not in _CODECS or "mp4" not in stream.container.format.name.split(","):
        return None
    packets = list(stream.index_entries)
    end = file.seek(0, os.SEEK_END)
    if not packets or len(packets) != stream.frames or (packets[0].timestamp != first.dts):
        return None
    # Column by column: a long video has thousands of packets, and this is most of the time of opening it.
    sizes, places, times, discarded, keys = (list(map(attrgetter(name), packets)) for name in _COLUMNS)
    if any(discarded) or min(sizes) <= 0 or max(map(add, places, sizes)) > end:
        return None
    delays = _read_delays(file, end, track=stream.id, count=len(packets))
    if delays is None or first.pts is None or first.dts is None:
        return None
    shift = first.pts - first.dts - delays[0]  # FFmpeg's own, the same for all
    shown = [time + delay + shift for time, delay in zip(times, delays, strict=True)]
    return list(map(Entry._make, zip(shown, times, keys, strict=True)))


def _read_delays(file: BinaryIO, end: int, *, track: int, count: int) -> list[int] | None:
    """Ticks from decoding time to presentation time of each packet, up to a constant."""
    header = _read_header(file, end)
    boxes = list(_boxes(header)) if header is not None else []
    if any(kind == b"mvex" for kind, _ in boxes):  # packets that the header does not know come in fragments
        return None
    tracks = [content for kind, content in boxes if kind == b"trak" and _track_number(content) == track]
    if len(tracks) != 1:
        return None
    table = _find(tracks[0], b"mdia", b"minf", b"stbl")
    if table is None:
        return None
    delays = _find(table, b"ctts")
    if delays is None:
        return [0] * count
    runs = np.frombuffer(delays[8 : 8 + (len(delays) - 8) // 8 * 8], ">i4").reshape(-1, 2)
    if len(delays) < 8 or len(runs) != int.from_bytes(delays[4:8]) or runs[:, 0].min(initial=1) < 1:
        return None
    if runs[:, 0].sum(dtype=np.int64) != count:
        return None
    found: list[int] = np.repeat(runs[:, 1], runs[:, 0]).tolist()
    return found


def _read_header(file: BinaryIO, end: int) -> memoryview | None:
    """The content of the file's box "moov"."""
    place = 0
    while place + 16 <= end:
        file.seek(place)
        size, kind, large = struct.unpack(">I4sQ", file.read(16))
        begin = 16 if size == 1 else 8
        size = large if size == 1 else size or end - place
        if size < begin or place + size > end:
            return None
        if kind == b"moov":
            file.seek(place + begin)
            return memoryview(file.read(size - begin)) if size <= _LARGEST else None
        place += size
    return None


def _boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of each box, up to the first that is damaged."""
    place = 0
    while place + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        if size < 8 or place + size > len(content):
            return
        yield kind, content[place + 8 : place + size]
        place += size


def _find(content: memoryview, *path: bytes) -> memoryview | None:
    """The content of a box in boxes."""
    for wanted in path:
        inner = next((inner for kind, inner in _boxes(content) if kind == wanted), None)
        if inner is None:
            return None
        content = inner
    return content


def _track_number(track: memoryview) -> int | None:
    """The number in the track's header: behind version, flags and two times, which version 1 writes longer."""
    header = _find(track, b"tkhd")
    if header is None or len(header) < 24:
        return None
    start = 20 if header[0] == 1 else 12
    return int.from_bytes(header[start : start + 4])
