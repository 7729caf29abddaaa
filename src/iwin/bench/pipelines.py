"""Ways from a video file to the clips of a batch, stage by stage: ours, and the usual one with other readers.

The usual one is that of the original program: decord (or OpenCV) reads whole frames, OpenCV resizes, crops and flips
each, and they leave the host as normalised float32.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iwin.bench.machine import installed_version
from iwin.data.annotations import Sample
from iwin.data.datasets import ClipReader, Key, generator
from iwin.data.decode import Video
from iwin.data.pictures import Pixels
from iwin.data.pyav import PyAVReader
from iwin.data.sampling import FrameSampler
from iwin.transforms.device import carry_out, split_steps
from iwin.transforms.geometry import Compose, Flip, RandomResizedCrop, Resize, ThreeCrop
from iwin.transforms.normalize import normalize
from iwin.transforms.plan import FrameSteps, Framing, Scaling, plan_clip

Frames = list[npt.NDArray[Any]]
"""RGB (H, W, 3) each."""

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZE = 224


@dataclass(frozen=True)
class Pattern:
    """What is taken from a video, and what becomes of it.

    Attributes:
        name: "train" or "test".
        sampler: which frames.
        short_side: what frames are resized to first.
        transform: all that happens to the clips.
    """

    name: str
    sampler: FrameSampler
    short_side: int
    transform: Compose


PATTERNS = (
    Pattern(
        "train",
        FrameSampler(clip_len=32, frame_interval=2),
        256,
        Compose((Resize(short_side=256), RandomResizedCrop(), Resize(size=(SIZE, SIZE)), Flip())),
    ),
    Pattern(
        "test",
        FrameSampler(clip_len=32, frame_interval=2, num_clips=4, test_mode=True),
        SIZE,
        Compose((Resize(short_side=SIZE), ThreeCrop((SIZE, SIZE)))),
    ),
)
"""One random clip of 32 frames, every second one, in training; four clips with three crops each in testing."""


@dataclass
class Stopwatch:
    """Seconds spent in stages; a stage within another one does not count for the outer one."""

    seconds: dict[str, float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count what happens inside for a stage."""
        self._count()
        self._open.append(stage)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def _count(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now


Read = Callable[[str, int, Stopwatch], Tensor]
"""The views of a video: its path, the number of the sample (which settles all that is random), and a stopwatch."""


@dataclass(frozen=True)
class Reader:
    """A way to read.

    Attributes:
        name: as in tables.
        scaling: ours: what may be done to spare work; None for other libraries.
        module: other libraries: what is imported.
    """

    name: str
    scaling: Scaling | None = None
    module: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether it can be measured here."""
        return self.module is None or (find_spec(self.module) is not None and find_spec("cv2") is not None)


READERS = (
    Reader("iwin", scaling="exact"),
    Reader("iwin crop_first", scaling="crop_first"),
    Reader("iwin swscale", scaling="swscale"),
    Reader("decord", module="decord"),
    Reader("opencv", module="cv2"),
)


def decoding_versions() -> dict[str, str | None]:
    """Versions of what decodes; None for what is not installed."""
    packages = ("av", "decord", "opencv-python-headless")
    return {package: installed_version(package) for package in packages} | {"ffmpeg in av": av.ffmpeg_version_info}


def normalised(views: Tensor) -> Tensor:
    """Views as float32 (V, 3, T, H, W) in grey levels around the mean, whoever made them."""
    std = torch.tensor(STD).view(3, 1, 1, 1)
    return (normalize(views, mean=MEAN, std=STD) if views.dtype == torch.uint8 else views) * std


def seed_of(number: int) -> np.random.Generator:
    """The random numbers of a sample: the same for every reader."""
    return generator(0, Key(0, number))


# ----------------------------------------------------------------------------------------------- ours


class TimedReader(PyAVReader):
    """Our reader, with FFmpeg's decoding and the way to RGB timed for themselves."""

    def __init__(self, path: str, watch: Stopwatch) -> None:
        self._watch = watch
        super().__init__(path)

    def _feed(self, packet: "av.Packet[av.VideoStream] | None") -> list[av.VideoFrame]:
        with self._watch("decode"):
            return super()._feed(packet)

    def _convert(self, picture: av.VideoFrame, number: int, out: Pixels) -> None:
        with self._watch("convert"):
            super()._convert(picture, number, out)


class TimedSteps(FrameSteps):
    """Crops and resizes, timed."""

    watch: Stopwatch

    def __call__(self, frames_THWC: Tensor, /) -> Tensor:
        """Apply them."""
        with self.watch("resize"):
            return super().__call__(frames_THWC)


def clip_reader(pattern: Pattern, scaling: Scaling) -> ClipReader:
    """What a decoder process of a training run is given."""
    return ClipReader(pattern.sampler, pattern.transform, scaling=scaling)


def read_ours(path: str, number: int, watch: Stopwatch, *, pattern: Pattern, scaling: Scaling) -> Tensor:
    """Uint8 views (V, T, H, W, 3), as `ClipReader.read` makes them: flips are left to the device."""
    rng = seed_of(number)
    with watch("open"):
        video = Video(TimedReader(path, watch), path=path)
    with video, watch("seek"):
        indices = pattern.sampler(video.num_frames, rng)
        plan = plan_clip(pattern.transform, (video.height, video.width), rng, scaling=scaling)
        box, size, steps = plan.framing
        if steps is not None:
            steps = TimedSteps(steps.steps)
            steps.watch = watch
        frames = video.get_frames(indices.ravel(), Framing(box, size, steps))
    with watch("resize"):
        return split_steps(plan.rest).host(frames.unflatten(0, indices.shape), rng).contiguous()


def finished(path: str, number: int, *, pattern: Pattern, scaling: Scaling) -> Tensor:
    """The views as a run's model sees them, but for the normalisation: also what is left to the device is done."""
    item = clip_reader(pattern, scaling).read(Key(0, number), Sample(path, (0,)))
    views = item.views.clone()
    carry_out(views, item.edits)
    return views


def samples(paths: Sequence[str], count: int) -> list[Sample]:
    """So many samples of the videos, in turn."""
    return [Sample(paths[number % len(paths)], (0,)) for number in range(count)]


# ---------------------------------------------------------------------------------------------- theirs


def read_theirs(path: str, number: int, watch: Stopwatch, *, pattern: Pattern, library: str) -> Tensor:
    """Normalised float32 views (V, 3, T, H, W), frame by frame on the host."""
    rng = seed_of(number)
    frames, clips = LIBRARIES[library](path, pattern.sampler, rng, watch)
    with watch("resize"):
        frames = _transform(frames, pattern, rng)
    with watch("normalise"):
        pixels = _normalise(frames)
        views = pixels.reshape(-1, pattern.sampler.clip_len, *pixels.shape[1:]).transpose(0, 4, 1, 2, 3)
        assert len(views) % clips == 0
        return torch.from_numpy(views)


def _read_decord(path: str, sampler: FrameSampler, rng: np.random.Generator, watch: Stopwatch) -> tuple[Frames, int]:
    import decord

    with watch("open"):
        reader = decord.VideoReader(path, num_threads=1)
    indices = sampler(len(reader), rng)
    with watch("decode"):
        wanted, places = np.unique(indices, return_inverse=True)
        frames = reader.get_batch(wanted.tolist()).asnumpy()
        return [frames[place] for place in places.ravel()], len(indices)


def _read_opencv(path: str, sampler: FrameSampler, rng: np.random.Generator, watch: Stopwatch) -> tuple[Frames, int]:
    import cv2

    with watch("open"):
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    indices = sampler(count, rng)
    with watch("decode"):
        wanted, places = np.unique(indices, return_inverse=True)
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(wanted[0]))
        frames, following = {}, int(wanted[0])
        for place in wanted.tolist():
            while following <= place:
                capture.grab()
                following += 1
            frames[place] = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
        capture.release()
        return [frames[wanted[place]] for place in places.ravel()], len(indices)


LIBRARIES = {"decord": _read_decord, "opencv": _read_opencv}


def _transform(frames: Frames, pattern: Pattern, rng: np.random.Generator) -> Frames:
    import cv2

    height, width = Resize(short_side=pattern.short_side).output_size(*frames[0].shape[:2])
    frames = [cv2.resize(frame, (width, height)) for frame in frames]
    if pattern.name == "test":
        step = (width - SIZE) // 2
        return [frame[:SIZE, place * step : place * step + SIZE] for place in (0, 2, 1) for frame in frames]
    top, left, rows, columns = RandomResizedCrop().box(height, width, rng)
    frames = [cv2.resize(frame[top : top + rows, left : left + columns], (SIZE, SIZE)) for frame in frames]
    return [cv2.flip(frame, 1) for frame in frames] if rng.random() < 0.5 else frames


def _normalise(frames: Frames) -> npt.NDArray[np.float32]:
    import cv2

    pixels = np.empty((len(frames), *frames[0].shape), np.float32)
    mean, factor = np.array([MEAN]), 1 / np.array([STD])
    for place, frame in enumerate(frames):
        pixels[place] = frame
        cv2.subtract(pixels[place], mean, pixels[place])
        cv2.multiply(pixels[place], factor, pixels[place])
    return pixels
