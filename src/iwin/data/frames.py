"""Videos kept as folders of numbered pictures, one picture a frame."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from iwin.data.annotations import FrameFolder
from iwin.data.sources import files_below, is_url, join, open_bytes
from iwin.errors import DataError, VideoError
from iwin.transforms.memory import empty_clip
from iwin.transforms.plan import WHOLE, Framing

ASSUMED_FPS = 25.0
"""Pictures do not tell how long they are shown."""


class FrameFolderReader:
    """Reads frames that were extracted into a folder beforehand.

    Args:
        path: the folder, on this machine or behind an address that can be listed.
        stored: which of its pictures belong to the video.

    Raises:
        VideoError: a picture is missing, or the first one cannot be read.
    """

    def __init__(self, path: str, stored: FrameFolder) -> None:
        self._path = path
        self._stored = stored
        self.num_frames = stored.num_frames
        self.duration = stored.num_frames / ASSUMED_FPS
        self._check_pictures()
        with self._open(0) as picture:
            self.size = picture.size[::-1]

    def read(self, numbers: Sequence[int], framing: Framing = WHOLE) -> torch.Tensor:
        """Frames as stored, uint8 RGB (T, H, W, 3); ``numbers`` lie within the video, in any order.

        A framing that scales is refused.
        """
        box, size, steps = framing
        if size is not None:
            raise VideoError(f"{self._path}: only PyAV scales while it decodes; set scaling='exact'")
        top, left, height, width = box or (0, 0, *self.size)
        frames_THWC = empty_clip(len(numbers), *(steps.size if steps else (height, width)), 3)
        pixels = frames_THWC.numpy()
        for row, number in enumerate(numbers):
            with self._open(number) as picture:
                if picture.size[::-1] != self.size:
                    raise VideoError(
                        f"{self._name(number)}: is {picture.size[1]} x {picture.size[0]}, the first frame "
                        f"{self.size[0]} x {self.size[1]}; extract the frames again or take the folder off the list"
                    )
                try:
                    cropped = np.array(picture.convert("RGB").crop((left, top, left + width, top + height)))
                except OSError as error:
                    raise self._unreadable(number, error) from None
            pixels[row] = steps(torch.from_numpy(cropped)[None])[0].numpy() if steps else cropped
        return frames_THWC

    def close(self) -> None:
        """Nothing stays open between reads."""

    def _name(self, number: int) -> str:
        return join(self._path, self._stored.template.format(self._stored.first + number))

    def _check_pictures(self) -> None:
        """Refuse folders that hold fewer pictures than the list tells."""
        if not is_url(self._path) and not Path(self._path).is_dir():
            raise VideoError(f"{self._path}: no such folder of frames; check the path and data_prefix")
        if self.num_frames < 1:
            raise VideoError(f"{self._path}: the list gives it no frames; take it off the list")
        try:
            there = {"/".join(file.parts) for file in files_below(self._path)}
        except DataError as error:
            raise VideoError(str(error)) from error
        template, first = self._stored.template, self._stored.first
        for number in range(first, first + self.num_frames):
            if template.format(number) not in there:
                raise VideoError(
                    f"{join(self._path, template.format(number))}: the frame is missing, though the list gives "
                    f"{self.num_frames} frames from {template.format(first)} on; extract the frames again, or correct "
                    "the list, filename_tmpl or start_index"
                )

    def _open(self, number: int) -> Image.Image:
        name = self._name(number)
        try:
            return Image.open(io.BytesIO(open_bytes(name).read()) if is_url(name) else name)
        except OSError as error:
            raise self._unreadable(number, error) from None

    def _unreadable(self, number: int, error: OSError) -> VideoError:
        reason = "no picture" if isinstance(error, UnidentifiedImageError) else error.strerror or error
        return VideoError(f"{self._name(number)}: the frame cannot be read ({reason}); extract the frames again")
