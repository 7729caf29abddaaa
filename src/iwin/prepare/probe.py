"""What one video is, and whether it can be trained on."""

import contextlib
import hashlib
import stat
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Self

import av
import av.logging
from av.stream import Disposition

from iwin.data.annotations import FrameFolder, Sample, ShardMember
from iwin.data.decode import Video, open_sample
from iwin.data.sources import is_url, open_bytes, unreadable
from iwin.data.workers import report_progress
from iwin.errors import VideoError

Problem = Literal["missing", "empty", "unreadable", "undecodable", "cut off", "hole", "hang", "crash"]
"""What can be wrong with a file:

- missing: there is no such file;
- empty: it has no bytes;
- unreadable: no video in it that can be opened;
- undecodable: it opens, and a frame does not decode, or decodes in part only;
- cut off: it ends before its own header says, as a download that broke off does;
- hole: its bytes are damaged so that pictures in the middle are lost;
- hang: decoding did not come to an end within the time limit;
- crash: the decoder died on it.
"""

Depth = Literal["open", "places", "all"]
"""What is decoded of a file: its first picture; its first, middle and last frame too; or every frame."""

_CUT_FRAMES = 0.02
"""Share of the frames that may be lacking."""

_CUT_SECONDS = 0.3
_CUT_DURATION = 0.1
"""Seconds, and share of the duration, that a file may end before its header says: headers round and guess."""

_HOLE = 2.0
"""How many times as long as the usual one a gap between two pictures is that counts as a hole. Long still pictures make
such gaps too, so it counts only where FFmpeg complains of the file's structure."""

_CHUNK = 1 << 20
_FRAMES = 16


@dataclass(frozen=True)
class VideoFacts:
    """One file. What could not be found out is None.

    Attributes:
        path: the file; of a folder of frames, the sample's key.
        size: in bytes.
        mtime_ns: when it was last changed, in nanoseconds since 1970.
        problem: what is wrong with it; None for a good one.
        reason: the same, as a sentence for people.
        container: FFmpeg's name of the file format.
        codec: FFmpeg's name of the video codec.
        height: of the picture as displayed, in pixels.
        width: of the picture as displayed, in pixels.
        num_frames: frames that can be asked for.
        duration: of the video, in seconds.
        fps: frames per second, the mean over the video.
        keyframe_interval: frames from one keyframe to the next, the mean over the video.
        digest: BLAKE2b of the content, 16 bytes in hexadecimal.
    """

    path: str
    size: int | None = None
    mtime_ns: int | None = None
    problem: Problem | None = None
    reason: str | None = None
    container: str | None = None
    codec: str | None = None
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    duration: float | None = None
    fps: float | None = None
    keyframe_interval: float | None = None
    digest: str | None = None

    @classmethod
    def of_sample(cls, sample: Sample) -> Self:
        """What the file system knows of a sample, without opening it: size and time, or that it is missing or empty."""
        path = sample.path
        if is_url(path):
            return cls(path)
        member = sample.stored if isinstance(sample.stored, ShardMember) else None
        try:
            status = Path(member.tar if member else path).stat()
        except PermissionError as error:
            return cls(sample.key, problem="unreadable", reason=str(unreadable(path, error)))
        except OSError as error:
            return cls(sample.key, problem="missing", reason=f"{path}: is not there ({error.strerror})")
        if isinstance(sample.stored, FrameFolder):
            return cls(sample.key, None, status.st_mtime_ns)
        if not stat.S_ISREG(status.st_mode):
            return cls(path, problem="unreadable", reason=f"{path}: is not a file")
        size = member.size if member else status.st_size
        if size == 0:
            return cls(path, 0, status.st_mtime_ns, "empty", f"{path}: the file is empty")
        return cls(path, size, status.st_mtime_ns)

    def to_dict(self) -> dict[str, Any]:
        """The attributes by name."""
        return asdict(self)


@dataclass(frozen=True)
class Probe:
    """What is to be found out about a file.

    Attributes:
        sample: the video.
        depth: what is decoded.
        digest: whether its content is hashed.
    """

    sample: Sample
    depth: Depth = "places"
    digest: bool = False


def probe(order: Probe) -> dict[str, Any]:
    """Look into a video; the attributes of its `VideoFacts` that were found out, by name."""
    sample, path = order.sample, order.sample.path
    is_file = not is_url(path) and not isinstance(sample.stored, FrameFolder)
    found: dict[str, Any] = {}
    problem: Problem = "unreadable"
    lack: _Lack | None = None
    try:
        if order.digest and is_file:
            found["digest"] = content_digest(sample)
        with open_sample(sample, strict=True) as video:
            if is_file:
                with _open_bytes(sample) as file:
                    streams, lack = _read_streams(file)
                found |= streams
            found |= {"height": video.height, "width": video.width}
            found |= {"num_frames": video.num_frames, "duration": round(video.duration, 6), "fps": round(video.fps, 6)}
            problem = "undecodable"
            _decode(video, order.depth)
    except VideoError as error:
        found |= {"problem": problem, "reason": str(error)}
    if lack is not None:
        found |= {"problem": lack.problem, "reason": f"{path}: {lack.reason}"}
    return found


def check_whole(path: str | Path) -> None:
    """Refuse a video file that holds less than it should; whether what it holds decodes is not looked at.

    Raises:
        VideoError: saying what is lacking.
    """
    with Path(path).open("rb") as file:
        _, lack = _read_streams(file)
    if lack is not None:
        raise VideoError(f"{path}: {lack.reason}")


def _decode(video: Video, depth: Depth) -> None:
    last = video.num_frames - 1
    if depth == "places":
        for number in dict.fromkeys((0, last // 2, last)):
            report_progress()
            video.get_frames([number])
    elif depth == "all":
        first = 0
        while first < video.num_frames:  # which may shrink on the way
            report_progress()
            video.get_frames(range(first, min(first + _FRAMES, video.num_frames)))
            first += _FRAMES


def content_digest(sample: Sample) -> str:
    """BLAKE2b of a file's content or of a shard's member, 16 bytes in hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    with _open_bytes(sample) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            report_progress()
    return digest.hexdigest()


def _open_bytes(sample: Sample) -> BinaryIO:
    if isinstance(sample.stored, ShardMember):
        return open_bytes(sample.stored.tar, offset=sample.stored.offset, size=sample.stored.size)
    try:
        return Path(sample.path).open("rb")
    except OSError as error:
        raise unreadable(sample.path, error) from None


class _Lack(NamedTuple):
    """What a file should hold and does not.

    Attributes:
        problem: its kind.
        reason: the same and what to do, as the end of a sentence.
    """

    problem: Problem
    reason: str


def _read_streams(file: BinaryIO) -> tuple[dict[str, Any], _Lack | None]:
    """Container, codec and distance of keyframes; and what is lacking."""
    with av.open(file, "r", metadata_errors="replace") as container:
        video = next(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
        # The index leaves out what the number in the header counts too: frames that were dropped when an AVI file was
        # recorded, and those that an edit list cuts. A file that breaks off may lack its index.
        index = len(video.index_entries)
        frames = index if video.frames and index > 1 else video.frames
        packets = keyframes = 0
        end = 0.0
        shown: list[float] = []
        with _complaints() as complaints, contextlib.suppress(av.FFmpegError, IndexError):
            for packet in container.demux():  # may break off; IndexError: see iwin.data.pyav
                time = packet.dts if packet.pts is None else packet.pts
                if not packet.size:
                    continue
                if time is not None:
                    end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
                if packet.stream is video:
                    packets += 1
                    keyframes += packet.is_keyframe
                    if time is not None:
                        shown.append(float(time * packet.time_base))
        announced = (container.duration or 0) / av.time_base
        name = container.format.name
        lack = None
        if frames - packets > _CUT_FRAMES * frames:
            lack = _Lack("cut off", f"announces {frames} frames and holds {packets}; download it again")
        elif announced - end > max(_CUT_SECONDS, _CUT_DURATION * announced):
            reason = f"announces {announced:.1f} seconds and ends after {end:.1f}; download it again"
            lack = _Lack("cut off", reason)
        elif name in {source for _, source, _ in complaints}:
            lack = _find_hole(sorted(shown))
        facts = {
            "container": name,
            "codec": video.codec_context.codec.canonical_name,
            "keyframe_interval": round(packets / keyframes, 1) if keyframes else None,
        }
        return facts, lack


def _find_hole(times: list[float]) -> _Lack | None:
    """The longest gap between pictures in a file of damaged structure, if it is longer than usual."""
    gaps = [after - before for before, after in pairwise(times)]
    longest = max(gaps, default=0.0)
    if longest <= _HOLE * statistics.median(gaps or [0.0]):
        return None
    start = times[gaps.index(longest)]
    reason = f"is damaged after {start:.1f} seconds, where {longest:.1f} seconds are lost; download it again"
    return _Lack("hole", reason)


@contextlib.contextmanager
def _complaints() -> Iterator[list[tuple[int, str, str]]]:
    """What FFmpeg calls errors meanwhile: level, which part of it speaks, message.

    A demuxer that loses its way in a damaged file looks for the next sound place and tells nobody in any other way.
    """
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # the last file may have made FFmpeg say the same
    try:
        with av.logging.Capture() as complaints:
            yield complaints
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)
