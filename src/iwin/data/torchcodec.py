"""Read videos with torchcodec, whose wheel takes FFmpeg from the system, on a CPU or with a GPU's video decoder.

torchcodec finds frames by their presentation times. Which time belongs to frame k is what PyAV's index says
(``iwin.data.pyav``), and every picture that comes is compared with it: in MPEG-4 AVI files, for one, torchcodec alone
gives the neighbour of the frame that is asked for. Files in which times cannot tell frames apart are read with PyAV,
and so are containers and pictures that torchcodec was seen to treat otherwise: mirrored or interlaced ones, more than
8 bits, odd sides. So is what is left of a file once a picture was not the one that the index foretold.
"""

import importlib.metadata
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

import torch

from iwin.data.pyav import FrameMap, PyAVReader
from iwin.errors import VideoError
from iwin.transforms.plan import WHOLE, Framing

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder

FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers, by FFmpeg's names, in which torchcodec's seeks lead where they should; MPEG-TS is not among them."""


class TorchCodecReader:
    """Reads a video with torchcodec, and with PyAV what torchcodec would not read exactly.

    Args:
        path: the file, or the name of `file` in messages.
        file: what to read instead.
        num_threads: decoding threads, of a CPU.
        device: where to decode; frames are given out there.
    """

    def __init__(
        self, path: str, *, file: BinaryIO | None = None, num_threads: int = 1, device: str | torch.device = "cpu"
    ) -> None:
        self._path, self._file, self._num_threads, self._device = path, file, num_threads, torch.device(device)
        self._decoder: VideoDecoder | None = None
        self._exact: PyAVReader | None = PyAVReader(path, file=file, num_threads=num_threads)
        self.size, self.duration = self._exact.size, self._exact.duration
        self._num_frames = self._exact.num_frames
        self._map = self._exact.frame_map()
        if self._map is not None and _is_fit(self._map):
            self._exact.close()
            self._exact = None
            self._decoder = self._open(self._map)

    @property
    def num_frames(self) -> int:
        """Frames in the video; may shrink once decoding shows that a file holds fewer."""
        return self._num_frames if self._exact is None else self._exact.num_frames

    @property
    def is_exact(self) -> bool:
        """Whether PyAV reads this file."""
        return self._decoder is None

    def read(self, numbers: Sequence[int], framing: Framing = WHOLE) -> torch.Tensor:
        """Frames as displayed, uint8 RGB (T, H, W, 3); ``numbers`` lie within the video, in any order.

        A framing that scales is refused.
        """
        box, size, steps = framing
        if size is not None:
            raise VideoError(f"{self._path}: only PyAV scales while it decodes; set scaling='exact' or decoder='pyav'")
        frames_THWC = self._decode(numbers) if numbers else None
        if frames_THWC is None:
            return self._with_pyav().read(numbers, framing)
        if box is not None:
            top, left, height, width = box
            frames_THWC = frames_THWC[:, top : top + height, left : left + width].contiguous()
        return steps(frames_THWC).contiguous() if steps else frames_THWC

    def close(self) -> None:
        """Give back the file and the decoder; may be called twice."""
        self._decoder = None
        if self._exact is not None:
            self._exact.close()

    def _open(self, frame_map: FrameMap) -> "VideoDecoder | None":
        from torchcodec.decoders import VideoDecoder

        times = frame_map.times
        ends = [*times[1:], times[-1] + 1]
        mapping = [
            {"pts": time, "duration": end - time, "key_frame": int(number in frame_map.keyframes)}
            for number, (time, end) in enumerate(zip(times, ends, strict=True))
        ]
        if self._file is not None:
            self._file.seek(0)
        try:
            return VideoDecoder(
                self._path if self._file is None else self._file,
                dimension_order="NHWC",
                num_ffmpeg_threads=self._num_threads,
                device=self._device,
                stream_index=frame_map.stream,
                custom_frame_mappings=json.dumps({"frames": mapping}),
            )
        except (RuntimeError, ValueError):
            return None

    def _decode(self, numbers: Sequence[int]) -> torch.Tensor | None:
        """What torchcodec gives for the frames, or None if these are not they."""
        if self._decoder is None or self._map is None:
            return None
        try:
            batch = self._decoder.get_frames_at(list(numbers))
        except (RuntimeError, IndexError):
            return None
        times = (batch.pts_seconds / float(self._map.time_base)).round().long().tolist()
        fits = batch.data.shape[1:3] == self.size and times == [self._map.times[number] for number in numbers]
        return batch.data if fits else None

    def _with_pyav(self) -> PyAVReader:
        """PyAV's reader, which takes over for good."""
        self._decoder = None
        if self._exact is None:
            self._exact = PyAVReader(self._path, file=self._file, num_threads=self._num_threads)
        return self._exact


def _is_fit(frame_map: FrameMap) -> bool:
    is_usual = frame_map.is_plain and not frame_map.is_mirrored and not frame_map.is_interlaced
    return is_usual and frame_map.format in FORMATS


def version() -> str:
    """The installed version."""
    return importlib.metadata.version("torchcodec")


@cache
def load_problem() -> str | None:
    """Why torchcodec cannot be used here and what to do, or None if it can."""
    try:
        from torchcodec.decoders import VideoDecoder
    except ImportError:
        return "it is not installed (pip install 'iwin[torchcodec]')"
    except (RuntimeError, OSError) as error:  # some versions load FFmpeg when they are imported
        return _why_not_loaded(str(error))
    try:
        VideoDecoder(b"no video")
    except (RuntimeError, ValueError) as error:
        return _why_not_loaded(str(error)) if "load libtorchcodec" in str(error) else None
    raise AssertionError("a text is no video")


def _why_not_loaded(message: str) -> str:
    causes = re.findall(r"^OSError: (lib.+)$", message, re.MULTILINE)
    other = [cause for cause in causes if not re.match(r"lib(av|sw|postproc)\w*\.", cause)]
    if other:
        return f"version {version()} does not fit PyTorch {torch.__version__} ({other[0]}); install a pair that does"
    return "it finds no FFmpeg; install FFmpeg's shared libraries (on Debian and Ubuntu: apt-get install ffmpeg)"
