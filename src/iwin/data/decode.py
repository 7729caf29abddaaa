"""Decode the frames that are asked for, exactly those.

    with open_video("clip.mp4") as video:
        clip_THWC = video.get_frames([0, 8, 16, 24])

Shapes: T frames, H height, W width, C = 3 channels (RGB). Frame k of a video is the k-th picture that a plain decode of
its first video stream puts out. ``VideoReader`` is what a decoding library has to offer, one file a library.
"""

import importlib.metadata
import operator
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Protocol, Self, SupportsIndex, get_args

import torch

from iwin.data.annotations import FrameFolder, Sample, ShardMember
from iwin.data.sources import is_url, open_bytes, unreadable
from iwin.errors import VideoError
from iwin.transforms.geometry import Box as Box
from iwin.transforms.geometry import Size
from iwin.transforms.plan import WHOLE
from iwin.transforms.plan import Framing as Framing

DecoderName = Literal["auto", "pyav", "torchcodec"]


class VideoReader(Protocol):
    """What a decoder has to offer; ``Video`` does the rest."""

    @property
    def num_frames(self) -> int:
        """Frames in the video; may shrink once decoding shows that a file holds fewer."""

    @property
    def size(self) -> Size:
        """Height and width in pixels, as displayed: after the rotation that the file asks for."""

    @property
    def duration(self) -> float:
        """Seconds from the first frame's start to the last one's end."""

    def read(self, numbers: Sequence[int], framing: Framing = WHOLE) -> torch.Tensor:
        """Frames as displayed, uint8 RGB (T, H, W, 3); ``numbers`` lie within the video, in any order, with repeats.

        The box of ``framing`` lies within the picture. A reader that cannot scale raises a VideoError.
        """

    def close(self) -> None:
        """Give back the file and the decoder; may be called twice."""


class Video:
    """An open video, for one thread of the process that opened it.

    Attributes:
        path: the file, address or folder.
        height: of the picture as displayed, in pixels.
        width: of the picture as displayed, in pixels.
        duration: from the first frame's start to the last one's end, in seconds.
    """

    def __init__(
        self, reader: VideoReader, *, path: str, file: BinaryIO | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.path = path
        self.height, self.width = reader.size
        self.duration = reader.duration
        self._reader = reader
        self._file = file  # what the reader reads from, closed with it
        self._device = device
        self._closed = False

    @property
    def num_frames(self) -> int:
        """Frames in the video; fewer once reading has shown that a damaged file holds fewer."""
        return self._reader.num_frames

    @property
    def fps(self) -> float:
        """Frames per second, the mean over the whole video."""
        return self.num_frames / self.duration

    def get_frames(self, indices: Iterable[SupportsIndex], framing: Framing = WHOLE) -> torch.Tensor:
        """Decode the frames that are asked for.

        Colours are what FFmpeg's converter makes of the stream by default: it honours the range and the matrix that the
        file states, takes BT.601 where it states none, and brings 10-bit pictures to 8 bits. Pixels that are not square
        stay so.

        Args:
            indices: frame numbers from 0 to ``num_frames - 1``, in any order, repeats allowed.
            framing: what is wanted of each picture; whole pictures where nothing is said.

        Returns:
            uint8 RGB (T, H, W, 3), contiguous, in the order asked for.

        Raises:
            VideoError: an index or the box lies outside the video, or a frame cannot be decoded because the file is
                damaged, or the reader cannot scale.
        """
        if self._closed:
            raise VideoError(f"{self.path}: the video is closed; open it again with open_video")
        wanted = [operator.index(index) for index in indices]
        for index in wanted:
            if not 0 <= index < self.num_frames:
                raise VideoError(
                    f"{self.path}: there is no frame {index}; ask for frames from 0 to {self.num_frames - 1}"
                )
        if framing.box is not None:
            self._check_box(framing.box)
        return self._reader.read(wanted, framing).to(self._device)

    def _check_box(self, box: Box) -> None:
        top, left, height, width = box
        if min(top, left) < 0 or min(height, width) < 1 or top + height > self.height or left + width > self.width:
            raise VideoError(f"{self.path}: {box} does not lie within the picture of {self.height} x {self.width}")

    def close(self) -> None:
        """Give back the file and the decoder; may be called twice."""
        self._closed = True
        self._reader.close()
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_video(
    path: str | os.PathLike[str],
    *,
    decoder: DecoderName = "pyav",
    num_threads: int = 1,
    device: str = "cpu",
    strict: bool = False,
) -> Video:
    """Open a video file.

    Args:
        path: a file on this machine, or an address that fsspec knows, in any container and codec that FFmpeg reads.
        decoder: the library that decodes; ``choose_decoder`` tells what "auto" takes.
        num_threads: decoding threads for this video. One by default, since a data loader runs a process a core and
            more threads would only fight for them; more help to read one long video, 0 stands for one a core.
        device: where the frames are given out; torchcodec also decodes there, if it is a GPU.
        strict: whether reading refuses damage on the way from a keyframe to a wanted frame: packets that do not decode,
            and pictures that FFmpeg could decode in part only. PyAV alone tells, and with one thread for certain.

    Returns:
        The video, to be closed by a ``with`` statement or ``close()``.

    Raises:
        VideoError: no such file, or nothing in it that can be decoded as video, or ``strict`` without PyAV.
    """
    name = os.fspath(path)
    file = open_bytes(name) if is_url(name) else None
    if file is None:
        _check_file(Path(name), name)
    return _open(name, file, decoder=decoder, num_threads=num_threads, device=device, strict=strict)


def open_sample(sample: Sample, *, decoder: DecoderName = "pyav", num_threads: int = 1, strict: bool = False) -> Video:
    """Open a sample's video, however it is kept: a file, an address, a part of a tar file, a folder of frames.

    Args:
        sample: the sample.
        decoder: the library that decodes video files; folders of frames need none.
        num_threads: as for ``open_video``.
        strict: as for ``open_video``; a folder of frames always is.

    Raises:
        VideoError: there is no such video, or nothing in it that can be decoded, or ``strict`` without PyAV.
    """
    if isinstance(sample.stored, FrameFolder):
        from iwin.data.frames import FrameFolderReader

        return Video(FrameFolderReader(sample.path, sample.stored), path=sample.path)
    if isinstance(sample.stored, ShardMember):
        file = open_bytes(sample.stored.tar, offset=sample.stored.offset, size=sample.stored.size)
        return _open(sample.path, file, decoder=decoder, num_threads=num_threads, device="cpu", strict=strict)
    return open_video(sample.path, decoder=decoder, num_threads=num_threads, strict=strict)


def choose_decoder(wanted: DecoderName, *, device: str = "cpu") -> tuple[DecoderName, str | None]:
    """Settle which library decodes, before any process that decodes is started.

    "auto" takes torchcodec where it can decode on a GPU. On a CPU it takes PyAV: both wrap FFmpeg, and torchcodec needs
    PyAV beside it to know which frame is which, which makes it the slower one.

    Args:
        wanted: what the user asked for.
        device: where the frames are to be decoded.

    Returns:
        The decoder, never "auto", and for "auto" a line that says what was chosen and why.

    Raises:
        VideoError: there is no such decoder, or torchcodec is asked for and cannot be loaded.
    """
    if wanted not in get_args(DecoderName):
        raise VideoError(f"there is no decoder {wanted!r}; choose one of: {', '.join(get_args(DecoderName))}")
    if wanted == "pyav":
        return "pyav", None
    if wanted == "auto" and torch.device(device).type == "cpu":
        return "pyav", f"decoder: PyAV {av_version()}, which is exact and on a CPU no slower than torchcodec"
    from iwin.data.torchcodec import load_problem, version

    problem = load_problem()
    if wanted == "torchcodec":
        if problem:
            raise VideoError(f"the decoder torchcodec cannot be used: {problem}; set decoder='pyav'")
        return "torchcodec", None
    if problem:
        return "pyav", f"decoder: PyAV {av_version()} on the CPU, since torchcodec cannot be used: {problem}"
    return "torchcodec", f"decoder: torchcodec {version()} on {device}, whose colours may differ from PyAV's a little"


def av_version() -> str:
    """PyAV's version."""
    return importlib.metadata.version("av")


def _check_file(file: Path, name: str) -> None:
    # FFmpeg would take other things than files: devices, pipes that never end.
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no path of a file at all
        raise VideoError(f"{name}: no such file; check the path and the folder it is relative to") from None
    except OSError as error:
        raise unreadable(name, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(f"{name}: a folder, not a video file; give the path of a file")
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(f"{name}: a pipe or a device, not a video file; give the path of a file")
    if status.st_size == 0:
        raise VideoError(f"{name}: the file is empty; download it again or take it off the list")
    try:
        file.open("rb").close()
    except OSError as error:
        raise unreadable(name, error) from None


def _open(
    name: str, file: BinaryIO | None, *, decoder: DecoderName, num_threads: int, device: str, strict: bool
) -> Video:
    # Imported here: these files import this one.
    from iwin.data.pyav import PyAVReader
    from iwin.data.torchcodec import TorchCodecReader

    try:
        if strict and decoder != "pyav":
            raise VideoError(f"{name}: only PyAV tells damaged pictures; set decoder='pyav' or leave strict out")
        chosen, _ = choose_decoder(decoder, device=device)
        if chosen == "pyav":
            pyav_reader = PyAVReader(name, file=file, num_threads=num_threads, strict=strict)
            return Video(pyav_reader, path=name, file=file, device=device)
        reader = TorchCodecReader(name, file=file, num_threads=num_threads, device=device)
        return Video(reader, path=name, file=file, device=device)
    except BaseException:
        if file is not None:
            file.close()
        raise
