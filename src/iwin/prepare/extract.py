"""Videos as folders of numbered JPEG pictures, as lists of frame folders (upstream's RawframeDataset) name them."""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import av
from av.video.reformatter import VideoReformatter
from PIL import Image

from iwin.data.decode import open_video
from iwin.data.workers import report_progress
from iwin.errors import DataError, IwinError
from iwin.prepare.convert import Facts, Task
from iwin.prepare.probe import check_whole

_AT_ONCE = 16
"""Frames that are held in memory at once."""


@dataclass(frozen=True)
class Pictures:
    """How the pictures are written.

    Attributes:
        template: name of a picture, a format string for its number.
        first: number of the first picture.
        quality: of the JPEG, 1 to 95.
        short_side: of a picture in pixels, to which larger videos are scaled; None keeps their size.
    """

    template: str = "img_{:05}.jpg"
    first: int = 1
    quality: int = 95
    short_side: int | None = None

    def name(self, number: int) -> str:
        """The name of a frame, counted from 0."""
        return self.template.format(number + self.first)

    def has_name(self, name: str) -> bool:
        """Whether a file's name is of this form."""
        before, after = re.split(r"\{.*\}", self.template)
        return re.fullmatch(rf"{re.escape(before)}\d+{re.escape(after)}", name) is not None

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the pictures of a video of this size."""
        if self.short_side is None or min(height, width) <= self.short_side:
            return height, width
        factor = self.short_side / min(height, width)
        return round(height * factor), round(width * factor)


def check_template(template: str) -> None:
    """Refuse templates that do not give every frame a name of its own.

    Raises:
        DataError: telling what a template looks like.
    """
    try:
        names = {template.format(number) for number in (0, 1, 100_000)}
    except (IndexError, KeyError, ValueError):
        names = set()
    if len(names) < 3 or "/" in template or not template.endswith((".jpg", ".jpeg")):
        raise DataError(f"--template {template}: is not of the form img_{{:05}}.jpg, with the frame's number in braces")


def make_folder(task: Task, *, pictures: Pictures) -> Facts:
    """Do a task of `convert`: write a video's frames as displayed into a folder that is there whole or not at all.

    Raises:
        VideoError: if the video lacks what it announces, or a frame is damaged or cannot be decoded.
        IwinError: if the folder cannot be written.
    """
    temporary = task.target.with_name(f".{task.target.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        num_frames = _extract(task.sample.path, temporary, pictures)
        num_bytes = sum(file.stat().st_size for file in temporary.iterdir())
        if task.target.is_dir():
            _remove_frames(task.target, pictures)
        temporary.rename(task.target)
    except OSError as error:
        raise IwinError(f"{task.target}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {"num_frames": num_frames, "num_bytes": num_bytes}


def _remove_frames(folder: Path, pictures: Pictures) -> None:
    """Remove a folder of frames that an earlier run has made; any other is left alone.

    Raises:
        IwinError: if the folder holds anything else.
    """
    if not all(pictures.has_name(file.name) for file in folder.iterdir()):
        raise IwinError(f"{folder}: is there already and holds other files than frames; name another output folder")
    shutil.rmtree(folder)


def is_whole(target: Path, facts: Facts) -> bool:
    """Whether a folder has as many pictures as were written."""
    return target.is_dir() and sum(1 for _ in target.iterdir()) == facts["num_frames"]


def _extract(source: str, folder: Path, pictures: Pictures) -> int:
    reformatter = VideoReformatter()
    with open_video(source, strict=True) as video:
        check_whole(source)
        height, width = pictures.size_of(video.height, video.width)
        first = 0
        while first < video.num_frames:  # which may shrink on the way
            numbers = range(first, min(first + _AT_ONCE, video.num_frames))
            for number, frame in zip(numbers, video.get_frames(numbers).numpy(), strict=True):
                if (height, width) != frame.shape[:2]:
                    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                    scaled = reformatter.reformat(picture, width, height, interpolation="BICUBIC", threads=1)
                    frame = scaled.to_ndarray()
                Image.fromarray(frame).save(folder / pictures.name(number), quality=pictures.quality)
            report_progress()
            first = numbers.stop
        return video.num_frames
