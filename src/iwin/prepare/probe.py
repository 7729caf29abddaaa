"""What one video is, and whether it can be trained on."""

import contextlib
import hashlib
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import av
from av.stream import Disposition

from iwin.data.annotations import FrameFolder, Sample, ShardMember
from iwin.data.decode import Video, open_sample
from iwin.data.sources import is_url, open_bytes
from iwin.data.workers import report_progress
from iwin.errors import VideoError

Problem = Literal["missing", "empty", "unreadable", "undecodable", "cut off", "hang", "crash"]
"""What can be wrong with a file:

- missing: there is no such file;
- empty: it has no bytes;
- unreadable: no video in it that can be opened;
- undecodable: it opens, and a frame does not decode;
- cut off: it ends before its own header says, as a download that broke off does;
- hang: decoding did not come to an end within the time limit;
- crash: the decoder died on it.
"""

Depth = Literal["open", "places", "all"]
"""What is decoded of a file: its first picture; its first, middle and last frame too; or every frame."""

_CUT_FRAMES = 0.02
_CUT_FRAMES_OF_AVI = 2
"""Share of the frames that may be lacking, and number of them in AVI files: these count frames that were dropped when
they were recorded, and those that the picture starts behind the sound."""

_CUT_SECONDS = 0.3
_CUT_DURATION = 0.1
"""Seconds, and share of the duration, that a file may end before its header says: headers round and guess."""

_CHUNK = 1 << 20
_FRAMES = 16


@dataclass(frozen=True)
class VideoFacts:
    """One file. What could not be found out is None.

    Attributes:
        path: the file.
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
        except OSError as error:
            return cls(path, problem="missing", reason=f"{path}: is not there ({error.strerror})")
        if isinstance(sample.stored, FrameFolder):
            return cls(path, None, status.st_mtime_ns)
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
    lack: str | None = None
    try:
        if order.digest and is_file:
            found["digest"] = content_digest(sample)
        with open_sample(sample) as video:
            if is_file:
                streams, lack = _read_streams(sample)
                found |= streams
            found |= {"height": video.height, "width": video.width}
            found |= {"num_frames": video.num_frames, "duration": video.duration, "fps": video.fps}
            problem = "undecodable"
            _decode(video, order.depth)
    except VideoError as error:
        found |= {"problem": problem, "reason": str(error)}
    if lack is not None:
        found |= {"problem": "cut off", "reason": f"{path}: {lack}; download it again"}
    return found


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
    return Path(sample.path).open("rb")


def _read_streams(sample: Sample) -> tuple[dict[str, Any], str | None]:
    """Container, codec and distance of keyframes; and what the file announces and does not hold."""
    with _open_bytes(sample) as file, av.open(file, "r", metadata_errors="replace") as container:
        video = next(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
        packets = keyframes = 0
        end = 0.0
        with contextlib.suppress(av.FFmpegError, IndexError):  # it breaks off here; IndexError: see iwin.data.pyav
            for packet in container.demux():
                time = packet.dts if packet.pts is None else packet.pts
                if packet.size and time is not None:
                    end = max(end, float((time + (packet.duration or 0)) * packet.time_base))
                if packet.size and packet.stream is video:
                    packets += 1
                    keyframes += packet.is_keyframe
        announced = (container.duration or 0) / av.time_base
        lack = None
        slack = _CUT_FRAMES_OF_AVI if container.format.name == "avi" else 0
        if video.frames - packets > max(slack, _CUT_FRAMES * video.frames):
            lack = f"announces {video.frames} frames and holds {packets}"
        elif announced - end > max(_CUT_SECONDS, _CUT_DURATION * announced):
            lack = f"announces {announced:.1f} seconds and ends after {end:.1f}"
        facts = {
            "container": container.format.name,
            "codec": video.codec_context.codec.canonical_name,
            "keyframe_interval": round(packets / keyframes, 1) if keyframes else None,
        }
        return facts, lack
