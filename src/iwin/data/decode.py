"""Decode the frames that are asked for, exactly those.

    with open_video("clip.mp4") as video:
        clip_THWC = video.get_frames([0, 8, 16, 24])

Shapes: T frames, H height, W width, C = 3 channels (RGB). Frame k of a video is the k-th picture that a plain decode of
its first video stream puts out. ``VideoReader`` is what a decoding library has to offer, one file a library.
"""

import operator
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, SupportsIndex

import torch

from iwin.data.pyav import PyAVReader
from iwin.errors import VideoError

DecoderName = Literal["pyav"]


class VideoReader(Protocol):
    """What a decoder has to offer; ``Video`` does the rest."""

    @property
    def num_frames(self) -> int:
        """Frames in the video; may shrink once decoding shows that a file holds fewer."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, as displayed: after the rotation that the file asks for."""

    @property
    def duration(self) -> float:
        """Seconds from the first frame's start to the last one's end."""

    def read(self, numbers: Sequence[int]) -> torch.Tensor:
        """Frames as displayed, uint8 RGB (T, H, W, 3); ``numbers`` rise strictly and lie within the video."""

    def close(self) -> None:
        """Give back the file and the decoder; may be called twice."""


class Video:
    """An open video, for one thread of the process that opened it.

    Attributes:
        path: the file.
        height: of the picture as displayed, in pixels.
        width: of the picture as displayed, in pixels.
        duration: from the first frame's start to the last one's end, in seconds.
    """

    def __init__(self, reader: VideoReader, *, path: str) -> None:
        self.path = path
        self.height, self.width = reader.size
        self.duration = reader.duration
        self._reader = reader
        self._closed = False

    @property
    def num_frames(self) -> int:
        """Frames in the video; fewer once reading has shown that a damaged file holds fewer."""
        return self._reader.num_frames

    @property
    def fps(self) -> float:
        """Frames per second, the mean over the whole video."""
        return self.num_frames / self.duration

    def get_frames(self, indices: Iterable[SupportsIndex]) -> torch.Tensor:
        """Decode the frames that are asked for.

        Colours are what FFmpeg's converter makes of the stream by default: it honours the range and the matrix that the
        file states, takes BT.601 where it states none, and brings 10-bit pictures to 8 bits. Pixels that are not square
        stay so.

        Args:
            indices: frame numbers from 0 to ``num_frames - 1``, in any order, repeats allowed.

        Returns:
            uint8 RGB (T, H, W, 3), contiguous, in the order asked for.

        Raises:
            VideoError: an index lies outside the video, or a frame cannot be decoded because the file is damaged.
        """
        if self._closed:
            raise VideoError(f"{self.path}: the video is closed; open it again with open_video")
        wanted = [operator.index(index) for index in indices]
        for index in wanted:
            if not 0 <= index < self.num_frames:
                raise VideoError(
                    f"{self.path}: there is no frame {index}; ask for frames from 0 to {self.num_frames - 1}"
                )
        numbers = sorted(set(wanted))
        frames_THWC = self._reader.read(numbers)
        if numbers == wanted:
            return frames_THWC
        row = {number: row for row, number in enumerate(numbers)}
        return frames_THWC[[row[index] for index in wanted]]

    def close(self) -> None:
        """Give back the file and the decoder; may be called twice."""
        self._closed = True
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_video(path: str | os.PathLike[str], *, decoder: DecoderName = "pyav", num_threads: int = 1) -> Video:
    """Open a video file.

    Args:
        path: a file on this machine, in any container and codec that FFmpeg reads.
        decoder: the library that decodes.
        num_threads: decoding threads for this video. One by default, since a data loader runs a process a core and
            more threads would only fight for them; more help to read one long video, 0 stands for one a core.

    Returns:
        The video, to be closed by a ``with`` statement or ``close()``.

    Raises:
        VideoError: no such file, or nothing in it that can be decoded as video.
    """
    if decoder not in _READERS:
        raise VideoError(f"there is no decoder {decoder!r}; choose one of: {', '.join(_READERS)}")
    name = os.fspath(path)
    file = Path(name)
    # Checked here, since FFmpeg would take other things than files: addresses, devices, pipes that never end.
    if file.is_dir():
        raise VideoError(f"{name}: a folder, not a video file; give the path of a file")
    if not file.is_file():
        raise VideoError(f"{name}: no such file; check the path and the folder it is relative to")
    if file.stat().st_size == 0:
        raise VideoError(f"{name}: the file is empty; download it again or take it off the list")
    return Video(_READERS[decoder](name, num_threads=num_threads), path=name)


_READERS: dict[str, Callable[..., VideoReader]] = {"pyav": PyAVReader}
