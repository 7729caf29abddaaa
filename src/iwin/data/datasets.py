"""From a labelled video to uint8 clips, and from clips to a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from iwin.data.annotations import Sample
from iwin.data.decode import open_video
from iwin.data.sampling import FrameSampler
from iwin.errors import DataError, VideoError
from iwin.transforms.geometry import Transform, transform_with_label

SPARES = 10
"""Other videos that a training sample tries when its own cannot be decoded."""


@dataclass(frozen=True)
class BadVideo:
    """A video that could not be decoded.

    Attributes:
        index: its place in the annotations.
        reason: the decoder's sentence, path included.
    """

    index: int
    reason: str


@dataclass(frozen=True)
class Item:
    """One sample: the views of a video.

    Attributes:
        views: (V, T, H, W, 3) uint8 RGB, or None if no video could be decoded.
        label: class of what is shown: the video's, unless the transform makes it another one.
        index: place in the annotations of the video shown.
        bad: videos that were met and could not be decoded.
    """

    views: Tensor | None
    label: int
    index: int
    bad: tuple[BadVideo, ...] = ()


@dataclass
class Batch:
    """Samples that go through the model together.

    Attributes:
        views: (B, V, T, H, W, 3) uint8 RGB.
        labels: (B,) int64.
        indices: (B,) int64, places in the annotations.
        bad: videos that were met and could not be decoded.
    """

    views: Tensor
    labels: Tensor
    indices: Tensor
    bad: tuple[BadVideo, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which copies to a device run beside other work."""
        return Batch(self.views.pin_memory(), self.labels.pin_memory(), self.indices, self.bad)


class VideoDataset(Dataset[Item]):
    """Clips of labelled videos.

    A key is (epoch, index). All randomness of a sample comes from (seed, epoch, index) alone, so a run is the same
    whatever the number of processes, and can continue from any point.

    Args:
        samples: the labelled videos.
        sampler: which frames make the clips.
        transform: what happens to the clips.
        seed: seed of the run.
        replace_bad: whether a video that cannot be decoded is replaced by another one drawn at random (training);
            otherwise its item has no views and is counted (testing).
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        sampler: FrameSampler,
        transform: Transform,
        seed: int = 0,
        replace_bad: bool = False,
    ) -> None:
        self.samples = samples
        self.sampler = sampler
        self.transform = transform
        self.seed = seed
        self.replace_bad = replace_bad

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """The sample `index` as epoch `epoch` sees it."""
        epoch, index = key
        rng = np.random.default_rng([self.seed, epoch, index])
        bad: list[BadVideo] = []
        while True:
            sample = self.samples[index]
            try:
                return Item(*self._load(sample, rng), index, tuple(bad))
            except VideoError as error:
                bad.append(BadVideo(index, str(error)))
            if not self.replace_bad:
                return Item(None, sample.label, index, tuple(bad))
            if len(bad) > SPARES:
                raise DataError(f"{len(bad)} videos in a row could not be decoded; the last: {bad[-1].reason}")
            index = int(rng.integers(len(self.samples)))

    def _load(self, sample: Sample, rng: np.random.Generator) -> tuple[Tensor, int]:
        with open_video(sample.path) as video:
            indices = self.sampler(video.num_frames, rng)
            frames = video.get_frames(indices.ravel())
        return transform_with_label(self.transform, frames.unflatten(0, indices.shape), sample.label, rng)


def collate(items: Sequence[Item]) -> Batch:
    """Stack items that have views; those without leave their mark in `bad` only.

    Raises:
        DataError: if the views differ in shape.
    """
    good = [item for item in items if item.views is not None]
    views = [item.views for item in good if item.views is not None]
    shapes = {tuple(view.shape) for view in views}
    if len(shapes) > 1:
        raise DataError(
            f"the clips of a batch differ in shape ({', '.join(map(str, sorted(shapes)))}); "
            "end the pipeline with a crop, or set videos_per_gpu=1"
        )
    return Batch(
        views=torch.stack(views) if views else torch.empty(0, 1, 1, 1, 1, 3, dtype=torch.uint8),
        labels=torch.tensor([item.label for item in good], dtype=torch.int64),
        indices=torch.tensor([item.index for item in good], dtype=torch.int64),
        bad=tuple(bad for item in items for bad in item.bad),
    )
