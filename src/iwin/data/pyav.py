"""Read videos with PyAV, whose wheel carries FFmpeg.

Frame k is the k-th picture that a plain decode of the first video stream puts out. How it is found without that decode:

1. Opening finds every packet's presentation time, in the header of MP4 and MOV files (``packet_table``), else by
   reading all packets, and decodes nothing but the first picture. Sorted, the k-th time is frame k's (``_Index``).
2. Reading seeks to the last keyframe at or before a wanted frame, decodes from there and compares the time of every
   picture with the index. Pictures that nobody wants are not converted to RGB, and where H.264 allows it not decoded.
3. Where times cannot be trusted (``_build_index`` lists the cases) frames are counted from the first one on, and where
   a packet need not be a picture, by decoding. When a picture is not the one that the index foretold, the reader stops
   seeking, and if that does not help it counts. So an odd file costs time, never a wrong frame.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self, TypeAlias, TypeGuard

import av
import numpy as np
import torch
from av.container import InputContainer
from av.stream import Discard, Disposition

from iwin.data.packet_table import Entry, read_table
from iwin.data.pictures import Orientation, PictureConverter, Pixels
from iwin.errors import VideoError
from iwin.transforms.memory import empty_clip
from iwin.transforms.plan import WHOLE, Framing

_Packet: TypeAlias = "av.Packet[av.VideoStream]"

_SEEK_GAIN = 12
"""Frames that a seek must save to be worth it: it throws away the pictures that the decoder has ready to reorder."""

_MUCH = 16 * 2**20
"""Bytes of pictures from which on each is cropped and resized by itself: more calls, no memory beyond caches."""

_PLAYLISTS = frozenset({"concat", "dash", "hls"})
"""Formats of text files that FFmpeg follows to other files, whatever their own name."""

_PROGRESSIVE = 1
"""FFmpeg's AV_FIELD_PROGRESSIVE; 0 is unknown, above are the kinds of interlacing."""

_MEND = "download it again, re-encode it, or take it off the list"


class _Mismatch(Exception):  # noqa: N818 (never leaves this file)
    """The decoder put out another picture than the index foretold."""


class _Keyframe(NamedTuple):
    """A frame that decoding can start from."""

    number: int
    pts: int
    dts: int | None


@dataclass
class _Index:
    """Where the frames are.

    Args:
        num_frames: frames in the video.
        times: presentation time of each frame, rising; None where times cannot tell frames apart.
        keyframes: where decoding can start, rising.
        places: for damaged files, frame number -> place among the pictures that do come out; lost frames are left
            out. None: the places are the numbers.
    """

    num_frames: int
    times: list[int] | None = None
    keyframes: list[_Keyframe] = field(default_factory=list)
    places: dict[int, int] | None = None

    @classmethod
    def of_times(cls, times: list[int], entries: list[Entry]) -> Self:
        """Index frames by their times; keyframes whose own time is not among them are no place to start."""
        numbers = {time: number for number, time in enumerate(times)}
        keyframes = [
            _Keyframe(numbers[pts], pts, dts) for pts, dts, key in entries if key and pts is not None and pts in numbers
        ]
        return cls(len(times), times, sorted(keyframes))

    def number_at(self, time: int | None) -> int | None:
        """The frame that is shown at exactly this time."""
        if self.times is None or time is None:
            return None
        number = bisect_left(self.times, time)
        return number if number < len(self.times) and self.times[number] == time else None

    def keyframe_before(self, number: int) -> _Keyframe | None:
        """The last keyframe at or before a frame."""
        at = bisect_right(self.keyframes, number, key=lambda keyframe: keyframe.number)
        return self.keyframes[at - 1] if at else None


class FrameMap(NamedTuple):
    """What another decoder needs to find the same frames.

    Attributes:
        format: of the container, by FFmpeg's name.
        stream: number of the video stream in it.
        times: when each frame is shown, rising, in units of the time base.
        time_base: in seconds.
        keyframes: numbers of the frames that decoding can start from.
        is_mirrored: whether a player mirrors the pictures, beside turning them.
        is_interlaced: whether a picture may consist of two fields.
        is_plain: whether its colours are 8 bit and its sides even, so that there is one way to RGB.
    """

    format: str
    stream: int
    times: list[int]
    time_base: Fraction
    keyframes: frozenset[int]
    is_mirrored: bool
    is_interlaced: bool
    is_plain: bool


class PyAVReader:
    """Reads a video with PyAV, whose wheel carries FFmpeg."""

    def __init__(self, path: str, *, file: BinaryIO | None = None, num_threads: int = 1, strict: bool = False) -> None:
        self._path = path
        self._file = file  # what to read instead, where the path is only a name
        self._num_threads = num_threads
        self._strict = strict  # whether reading refuses damage instead of making the best of it
        self._playing = False  # whether a picture came out since the last jump
        self._damage: str | None = None  # what the file or the decoder complained of last
        self._pictures: Iterator[tuple[int, av.VideoFrame]] | None = None  # those that come next, with their numbers
        self._next = 0  # the number of the one that comes next
        self._wanted: set[int] = set()  # the numbers being read
        self._last_wanted = -1
        self._skipped: set[int] = set()  # the numbers that do not come out, since the last jump
        self._entered = -1  # the last keyframe that the decoder was given, since the last jump
        self._awaited: int | None = None  # the keyframe before which nothing need be decoded
        self._index = _Index(0)
        self._container, self._stream = self._open()
        try:
            entries, odd, first = self._scan()
            self._converter = PictureConverter(first)
            self._is_mirrored = sum(Orientation.of(first)) % 2 == 1  # a transposition mirrors too
            self.size = self._converter.size
            self._index = self._build_index(entries, odd)
            self.duration = self._measure(entries)
        except BaseException:
            self.close()
            raise

    @property
    def num_frames(self) -> int:
        """Frames in the video; may shrink once decoding shows that a file holds fewer."""
        return self._index.num_frames

    def read(self, numbers: Sequence[int], framing: Framing = WHOLE) -> torch.Tensor:
        """Frames as displayed, uint8 RGB (T, H, W, 3); ``numbers`` lie within the video, in any order, with repeats."""
        box, size, steps = framing
        height, width = size or (box[2:] if box else self.size)
        early = steps if 3 * height * width * len(numbers) > _MUCH else None
        whole = np.empty((height, width, 3), np.uint8)
        frames_THWC = empty_clip(len(numbers), *(early.size if early else (height, width)), 3)
        pixels = frames_THWC.numpy()
        rows: dict[int, list[int]] = {}
        for row, number in enumerate(numbers):
            rows.setdefault(number, []).append(row)
        self._wanted, self._last_wanted = set(rows), max(rows, default=-1)
        self._converter.prepare(count=len(rows), box=box, size=size)
        while True:
            try:
                for place, number in sorted((self._place(number), number) for number in rows):
                    first, *others = rows[number]
                    self._convert(self._decode(place), number, whole if early else pixels[first])
                    if early:
                        pixels[first] = early(torch.from_numpy(whole)[None])[0].numpy()
                    for row in others:
                        pixels[row] = pixels[first]
            except _Mismatch:
                self._distrust()
            else:
                return steps(frames_THWC).contiguous() if steps and not early else frames_THWC

    def frame_map(self) -> FrameMap | None:
        """Where the frames are, or None where times cannot tell frames apart."""
        if self._index.times is None or self._stream.time_base is None:
            return None
        codec = self._stream.codec_context
        bits = codec.format.components[0].bits if codec.format else 0
        return FrameMap(
            format=self._container.format.name,
            stream=self._stream.index,
            times=self._index.times,
            time_base=self._stream.time_base,
            keyframes=frozenset(keyframe.number for keyframe in self._index.keyframes),
            is_mirrored=self._is_mirrored,
            is_interlaced=codec.field_order > _PROGRESSIVE,
            is_plain=bits == 8 and codec.height % 2 == codec.width % 2 == 0,
        )

    def close(self) -> None:
        """Give back the file and the decoder; may be called twice."""
        self._pictures = None
        self._container.close()

    # Reading: stand at the right place, decode up to the wanted picture, convert it.

    def _place(self, number: int) -> int:
        """Where a frame stands among the pictures that come out."""
        place = number if self._index.places is None else self._index.places.get(number)
        if place is None or number >= self._index.num_frames:
            raise self._undecodable(number)
        return place

    def _decode(self, place: int) -> av.VideoFrame:
        """The picture at ``place``, from where the decoder stands if that is near enough, else by a seek."""
        keyframe = self._index.keyframe_before(place)
        near = keyframe is None or keyframe.number - self._next < _SEEK_GAIN
        if self._pictures is None or place < self._next or place in self._skipped or not near:
            self._jump(place, keyframe)
        self._awaited = keyframe.number if keyframe and keyframe.number > self._entered else None
        assert self._pictures is not None
        for number, picture in self._pictures:
            self._next = number + 1
            if self._strict and picture.is_corrupt:
                self._pictures = None  # those that come next lean on it
                raise self._undecodable(number, "parts of its data are damaged or missing")
            if number == place:
                return picture
        self._pictures = None
        raise self._undecodable(place)

    def _convert(self, picture: av.VideoFrame, number: int, out: Pixels) -> None:
        """RGB (H, W, 3) as displayed, of the box and size that are being read, into `out`."""
        try:
            self._converter.convert(picture, out)
        except (av.FFmpegError, OSError) as error:
            raise self._undecodable(number, f"no way to RGB: {error.strerror}") from error

    def _undecodable(self, number: int, reason: str | None = None) -> VideoError:
        reason = reason or self._damage or "the video ends before it"
        return VideoError(f"{self._path}: frame {number} cannot be decoded ({reason}); {_MEND}")

    # Standing at the right place.

    def _jump(self, place: int, keyframe: _Keyframe | None) -> None:
        """Stand at ``keyframe``, at an earlier one, or at the file's start."""
        self._pictures = None
        self._skipped, self._entered, self._playing = set(), -1, False
        if keyframe is not None:
            # MP4 and Matroska seek by presentation time, MPEG-TS, FLV and AVI by decoding time.
            for time in (keyframe.pts, keyframe.dts):
                if time is not None and self._seek(time, place):
                    return
        self._reopen()
        self._pictures, self._next = self._number(self._packets(), 0), 0

    def _seek(self, time: int, place: int) -> bool:
        """Seek to ``time``; False if that does not lead to a known keyframe at or before ``place``."""
        try:
            self._container.seek(time, stream=self._stream)
        except av.FFmpegError:
            return False
        packets = self._packets()
        first = next(packets, None)
        number = self._index.number_at(first.pts) if first is not None and first.is_keyframe else None
        if first is None or number is None or number > place:
            return False
        self._pictures, self._next = self._number(chain([first], packets), number), number
        return True

    def _number(self, packets: Iterator[_Packet], start: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode ``packets``, number the pictures from ``start`` on and compare them with the index."""
        times, number = self._index.times, start
        for picture in self._play(self._spare(packets)):
            if times is not None:
                while number < len(times) and picture.pts != times[number] and number in self._skipped:
                    number += 1
                if number == len(times) or picture.pts != times[number]:
                    raise _Mismatch
            yield number, picture
            number += 1
        if times is not None and number < len(times):
            raise _Mismatch

    def _distrust(self) -> None:
        """Find another way to the frames, after the index foretold a picture wrongly."""
        self._pictures = None
        index = self._index
        if index.keyframes:
            index.keyframes = []
            return
        self._damage = None
        self._reopen()
        times = [picture.pts for picture in self._play(self._packets())]
        if self._damage and index.times:  # some packets are broken: the other frames keep their numbers
            place = {time: place for place, time in enumerate(times)}
            places = {number: place[time] for number, time in enumerate(index.times) if time in place}
            self._index = _Index(index.num_frames, places=places)
        else:
            self._index = _Index(len(times))

    # The file, its packets and their pictures.

    def _open(self) -> tuple[InputContainer, av.VideoStream]:
        """Open the file at its start, with a fresh decoder."""
        try:
            # A title that is no UTF-8 is no reason to refuse a video, hence metadata_errors.
            if self._file is None:
                container = av.open(str(Path(self._path).absolute()), metadata_errors="replace")
            else:
                self._file.seek(0)
                container = av.open(self._file, "r", metadata_errors="replace")
        except av.FFmpegError as error:
            raise VideoError(f"{self._path}: not a video that can be read ({error.strerror}); {_MEND}") from error
        if container.format.name in _PLAYLISTS:
            container.close()
            raise VideoError(f"{self._path}: a list of other files, not a video; list those instead")
        # The cover picture of a song is a video stream to FFmpeg.
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams or streams[0].codec_context is None:
            lack = "FFmpeg has no decoder for its video" if streams else "holds no video"
            container.close()
            raise VideoError(f"{self._path}: {lack}; re-encode it or take it off the list")
        for stream in container.streams:
            if stream is not streams[0]:
                stream.discard = Discard.all
        streams[0].codec_context.thread_type = "AUTO"
        streams[0].codec_context.thread_count = self._num_threads
        return container, streams[0]

    def _reopen(self) -> None:
        self._container.close()
        self._container, self._stream = self._open()
        self._playing = False

    def _packets(self) -> Iterator[_Packet]:
        """The packets from here to the end of the file or to where it breaks off."""
        try:
            for packet in self._container.demux(self._stream):
                # An empty packet, like the one that PyAV ends with, would drain the decoder. _play does that, once.
                if packet.size:
                    # FFmpeg suspects whole packets too, at every joint of a transport stream, and passes that on to
                    # the picture. What the decoder itself finds says more.
                    packet.is_corrupt = False
                    yield packet
        except av.FFmpegError as error:
            self._damage = error.strerror
        except IndexError:  # PyAV's own, where a damaged transport stream announces a new stream midway
            self._damage = "a stream begins midway"

    def _play(self, packets: Iterator[_Packet]) -> Iterator[av.VideoFrame]:
        """The pictures of ``packets`` in output order."""
        for packet in packets:
            yield from self._feed(packet)
        yield from self._feed(None)

    def _feed(self, packet: "_Packet | None") -> list[av.VideoFrame]:
        """The pictures that come out after one more packet, or those that are left (None)."""
        try:
            pictures = self._stream.codec_context.decode(packet)
        except av.FFmpegError as error:
            self._damage = error.strerror
            # Before the first picture it may only be the rest of a GOP that was cut off.
            if self._strict and self._playing and self._wanted:
                raise self._undecodable(self._next) from error
            return []
        self._playing |= bool(pictures)
        return pictures

    def _spare(self, packets: Iterator[_Packet]) -> Iterator[_Packet]:
        """Pass on those packets that the wanted pictures need, as far as that is known.

        Before the awaited keyframe none is: passing them over is a seek without the seek. Of the others, the decoder is
        told to leave out those that neither the caller nor other pictures need. Only H.264 marks such pictures for
        certain; HEVC's mark holds within one temporal layer. Pictures behind the last wanted frame are spared, so that
        reading can go on from there.
        """
        codec = self._stream.codec_context
        marked = codec.name == "h264" and codec.field_order <= _PROGRESSIVE
        for packet in packets:
            number = self._index.number_at(packet.pts)
            if self._awaited is not None and self._entered >= 0:
                if number != self._awaited:
                    continue
                codec.flush_buffers()
                self._skipped.update(range(self._next, number))
            if packet.is_keyframe and number is not None:
                self._entered, self._awaited = max(self._entered, number), None
            if marked and number is not None and number < self._last_wanted and number not in self._wanted:
                codec.skip_frame = "NONREF"
                self._skipped.add(number)
            else:
                codec.skip_frame = "DEFAULT"
            yield packet

    # The index.

    def _scan(self) -> tuple[list[Entry], bool, av.VideoFrame]:
        """Find every packet.

        Returns:
            The packets that hold a picture, whether some may hold none or two, and the first picture.
        """
        codec = self._stream.codec_context
        packets = self._packets()
        start = next(packets, None)
        first = self._alone(start) if start is not None else None
        entries, odd = self._read_table(start) if start is not None and first is not None else None, False
        if entries is None:
            entries = []
            for packet in chain([start] if start is not None else [], packets):
                if first is None:
                    first = next(iter(self._feed(packet)), None)
                pictures = _pictures_in(codec.name, packet)
                odd |= pictures is None
                # Packets that an edit list cuts away are marked as discarded: the decoder puts nothing out for them.
                if pictures != 0 and not packet.is_discard:
                    entries.append(Entry(packet.pts, packet.dts, packet.is_keyframe))
        if first is None:
            first = next(iter(self._feed(None)), None)
        if first is None:
            reason = self._damage or "no picture comes out"
            raise VideoError(f"{self._path}: no frame can be decoded ({reason}); {_MEND}")
        # Pictures before the first keyframe lean on a GOP that was cut off and may not come out.
        assert start is not None  # a picture came out of something
        odd |= not start.is_keyframe or any((entry.pts or 0) < (start.pts or 0) for entry in entries)
        # The two fields of an interlaced H.264 picture may come in two packets.
        odd |= codec.name == "h264" and codec.field_order > _PROGRESSIVE
        return entries, odd, first

    def _read_table(self, first: _Packet) -> list[Entry] | None:
        """All packets without reading them, where the file's header tells; ``first`` has been read."""
        if self._file is None:
            with Path(self._path).open("rb") as file:
                return read_table(file, self._stream, first)
        place = self._file.tell()
        try:
            return read_table(self._file, self._stream, first)
        finally:
            self._file.seek(place)  # FFmpeg reads on from there

    def _alone(self, packet: _Packet) -> av.VideoFrame | None:
        """The picture of a packet, if it has one by itself, without waiting for others; leaves the decoder fresh."""
        pictures = [*self._feed(packet), *self._feed(None)]
        self._stream.codec_context.flush_buffers()
        return pictures[0] if pictures else None

    def _build_index(self, entries: list[Entry], odd: bool) -> _Index:
        """Index the frames by their packets' times where these can be trusted, else by counting."""
        codec = self._stream.codec_context
        times = [entry.pts for entry in entries if entry.pts is not None]
        unique = 0 < len(set(times)) == len(entries)
        # Where pictures are reordered, times that never step back in decoding order are no presentation times. AVI has
        # none at all, FFmpeg guesses them.
        in_order = times == sorted(times)
        guessed = codec.reorder_depth > 0 and (in_order or self._container.format.name == "avi")
        if unique and not odd and not guessed:
            return _Index.of_times(sorted(times), entries)
        if unique and not odd and codec.name == "mpeg4":
            return _Index(len(entries))
        self._reopen()
        shown = [picture.pts for picture in self._play(self._packets())]
        if _rising(shown) and (in_order or not guessed):  # in_order: nothing was reordered after all
            return _Index.of_times(shown, entries)
        return _Index(len(shown))

    def _measure(self, entries: list[Entry]) -> float:
        """Seconds from the first frame's start to the last one's end, which is taken to last as long as the others."""
        num_frames = self._index.num_frames
        clock: Sequence[int | None] = self._index.times or [entry.dts for entry in entries]
        if _rising(clock) and len(clock) == num_frames > 1 and self._stream.time_base:
            return float((clock[-1] - clock[0]) * self._stream.time_base * num_frames / (num_frames - 1))
        return float(num_frames / (self._stream.average_rate or self._stream.guessed_rate or 25))


def _rising(times: Sequence[int | None]) -> TypeGuard[list[int]]:
    return all(a is not None and b is not None and a < b for a, b in pairwise(times))


def _pictures_in(codec: str, packet: _Packet) -> int | None:
    """How many pictures a packet puts out, by its bytes: 1, 0, or None if only decoding can tell."""
    if codec not in ("vp8", "vp9", "mpeg4"):
        return 1
    data = memoryview(packet)
    if codec == "vp8":  # RFC 6386, 9.1: bit 4 of the frame tag is show_frame
        return data[0] >> 4 & 1
    if codec == "vp9":  # bitstream specification, 6.2: marker (2 bits), profile (2), show_existing, type, show_frame
        superframe = data[-1] >> 5 == 0b110  # in it, hidden pictures travel with the one that is shown
        head = data[0] << 1 if data[0] >> 4 & 0b11 == 0b11 else data[0]  # profile 3 has one bit more
        return int(superframe or head & 0b1010 != 0)
    if codec == "mpeg4":  # a "packed" packet holds two pictures, and the next one, a tiny one, stands for none
        return 1 if len(data) >= 20 and bytes(data).count(b"\x00\x00\x01\xb6") == 1 else None
    return 1
