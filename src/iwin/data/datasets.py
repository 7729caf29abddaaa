"""From a labelled video to uint8 clips, and from clips to a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iwin.data.annotations import Sample
from iwin.data.bad_videos import BadVideo
from iwin.data.decode import DecoderName, open_sample
from iwin.data.sampling import FrameSampler
from iwin.errors import DataError, IwinError
from iwin.transforms.device import Edit, carry_out, decide, split_steps
from iwin.transforms.geometry import Transform
from iwin.transforms.memory import empty_clip
from iwin.transforms.plan import Scaling, plan_clip


class Key(NamedTuple):
    """Which clips a dataset is asked for.

    Attributes:
        epoch: epoch of the run, from 0.
        video: its place in the annotations.
        draw: how often the epoch has drawn this video before.
        attempt: how many videos it stands in for, that could not be read.
    """

    epoch: int
    video: int
    draw: int = 0
    attempt: int = 0


@dataclass(frozen=True)
class Item:
    """One sample: the views of a video.

    Attributes:
        views: (V, T, H, W, 3) uint8 RGB.
        labels: classes of what is shown: the video's, unless the transform makes them others.
        index: place of the video in the annotations.
        edits: what remains to be done to the views, on the device.
    """

    views: Tensor
    labels: tuple[int, ...]
    index: int
    edits: tuple[Edit, ...] = ()


@dataclass
class Batch:
    """Samples that go through the model together.

    Attributes:
        views: (B, V, T, H, W, 3) uint8 RGB.
        targets: classes (B,) int64; for several labels a video, 1.0 for each class shown and 0.0 for the others, (B, K)
            float32.
        indices: (B,) int64, places in the annotations.
        edits: what remains to be done to the views of each sample, on the device; none where nothing does.
    """

    views: Tensor
    targets: Tensor
    indices: Tensor
    edits: tuple[tuple[Edit, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    def views_on(self, device: torch.device) -> Tensor:
        """The finished views on a device, (B, V, T, H, W, 3) uint8; `views` may be written to."""
        views = self.views.to(device, non_blocking=True)
        for sample, edits in zip(views, self.edits, strict=False):
            carry_out(sample, edits)
        self.edits = ()  # on the CPU, the views are the batch's own
        return views


@dataclass(frozen=True)
class ClipReader:
    """The way from a video to its clips; what a decoder process is given.

    All randomness of a sample comes from the seed and its key alone, so a run is the same whatever the number of
    processes, and can continue from any point.

    Attributes:
        sampler: which frames make the clips.
        transform: what happens to the clips.
        seed: seed of the run.
        decoder: what reads the videos.
        scaling: where the frames are scaled (see `plan_clip`).
    """

    sampler: FrameSampler
    transform: Transform
    seed: int = 0
    decoder: DecoderName = "pyav"
    scaling: Scaling = "exact"

    def __call__(self, request: tuple[Key, Sample]) -> Item | BadVideo:
        """The clips, or why there are none. A video that a transform cannot work on is a bad one too."""
        key, sample = request
        try:
            return self.read(key, sample)
        except IwinError as error:
            reason = str(error)
            return BadVideo(sample.path, reason if sample.path in reason else f"{sample.path}: {reason}")

    def read(self, key: Key, sample: Sample) -> Item:
        """The clips of a video.

        Raises:
            VideoError: if the video cannot be read.
            DataError: if a transform cannot work on it.
        """
        rng = generator(self.seed, key)
        # A damaged picture is no example of its class; torchcodec does not tell.
        with open_sample(sample, decoder=self.decoder, strict=self.decoder == "pyav") as video:
            indices = self.sampler(video.num_frames, rng)
            plan = plan_clip(self.transform, (video.height, video.width), rng, scaling=self.scaling)
            frames = video.get_frames(indices.ravel(), plan.framing)
        clips = frames.unflatten(0, indices.shape)
        host, late = split_steps(plan.rest)
        views, label = host.with_label(clips, sample.label, rng)
        edits, label = decide(late, size=(views.shape[2], views.shape[3]), label=label, rng=rng)
        return Item(views, sample.labels if len(sample.labels) > 1 else (label,), key.video, edits)


@dataclass(frozen=True)
class VideoDataset:
    """Clips of labelled videos.

    Attributes:
        samples: the labelled videos.
        reader: the way to their clips.
        num_classes: classes, where a video can have several labels; None where it has one.
    """

    samples: Sequence[Sample]
    reader: ClipReader
    num_classes: int | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Item:
        """The sample of a key; errors as `ClipReader.read`."""
        return self.reader.read(key, self.samples[key.video])


def generator(seed: int, key: Key) -> np.random.Generator:
    """The random numbers of a sample."""
    # numpy gives [a, b, c, 0] the stream of [a, b, c], but five numbers another one than four.
    return np.random.default_rng([seed, *key] if key.attempt else [seed, *key[:3]])


def collate(items: Sequence[Item], *, num_classes: int | None = None, pin_memory: bool = False) -> Batch:
    """Stack items; none give an empty batch.

    Args:
        items: samples whose views are of one shape.
        num_classes: classes, where a video can have several labels.
        pin_memory: put the batch into page-locked memory, from which copies to a device run beside other work.

    Raises:
        DataError: if the views differ in shape.
    """
    shapes = {tuple(item.views.shape) for item in items}
    if len(shapes) > 1:
        raise DataError(
            f"the clips of a batch differ in shape ({', '.join(map(str, sorted(shapes)))}); "
            "end the pipeline with a crop, or set videos_per_gpu=1"
        )
    shape = (len(items), *(shapes.pop() if shapes else (1, 1, 1, 1, 3)))
    views = torch.empty(shape, dtype=torch.uint8, pin_memory=True) if pin_memory else empty_clip(*shape)
    if items:
        torch.stack([item.views for item in items], out=views)
    if num_classes is None:
        targets = torch.tensor([item.labels[0] for item in items], dtype=torch.int64)
    else:
        targets = torch.zeros(len(items), num_classes)
        for row, item in enumerate(items):
            targets[row, list(item.labels)] = 1.0
    indices = torch.tensor([item.index for item in items], dtype=torch.int64)
    edits = tuple(item.edits for item in items)
    return Batch(views, targets.pin_memory() if pin_memory else targets, indices, edits)
