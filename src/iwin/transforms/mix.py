"""Mixing the clips of a batch with each other, on the device: mixup and cutmix.

Clips are normalised floats (N, ..., H, W), targets are class probabilities (N, K). Everything but
`Blend` is a pure function of what it is given; the numbers are those of the original's blending.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iwin.errors import DataError

Box = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels; bottom and right are outside."""

_STREAM = 0x6D6978  # keeps these random numbers apart from others drawn by the same seed and epoch


def mixup(clips: Tensor, targets: Tensor, *, lam: float, permutation: Tensor) -> tuple[Tensor, Tensor]:
    """Average each clip with another one (Zhang et al., arXiv 1710.09412).

    Args:
        clips: (N, ..., H, W).
        targets: (N, K).
        lam: Share of the clip itself, 0 .. 1.
        permutation: (N,) int64 on the same device: which clip each is averaged with.

    Returns:
        New clips, in the memory format of `clips`, and their targets.
    """
    return torch.lerp(clips, clips[permutation], 1 - lam), torch.lerp(targets, targets[permutation], 1 - lam)


def cutmix(clips: Tensor, targets: Tensor, *, box: Box, permutation: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a box out of another clip into each clip, in all frames (Yun et al., arXiv 1905.04899).

    Args:
        clips: (N, ..., H, W).
        targets: (N, K); they are averaged by the area of the box.
        box: What is pasted; it lies within the frames.
        permutation: (N,) int64 on the same device: which clip each gets its box from.

    Returns:
        New clips, in the memory format of `clips`, and their targets.
    """
    top, left, bottom, right = box
    mixed = clips.clone()
    mixed[..., top:bottom, left:right] = clips[..., top:bottom, left:right][permutation]
    pasted = (bottom - top) * (right - left) / (clips.shape[-2] * clips.shape[-1])
    return mixed, torch.lerp(targets, targets[permutation], pasted)


def cutmix_box(lam: float, *, y: int, x: int, height: int, width: int) -> Box:
    """The box around a pixel that leaves about a share `lam` of a frame, cut at the frame's borders.

    Args:
        lam: 0 .. 1; the box shrinks as it grows.
        y: Row of the centre.
        x: Column of the centre.
        height: Height of the frame.
        width: Width of the frame.
    """
    half_y, half_x = (int(side * math.sqrt(1 - lam)) // 2 for side in (height, width))
    return max(y - half_y, 0), max(x - half_x, 0), min(y + half_y, height), min(x + half_x, width)


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Mixup or cutmix with random parameters, one draw for a batch.

    The parameters come from (seed, epoch, batch, rank) alone, so a run that continues mixes as one that was never
    stopped.

    Attributes:
        num_classes: Classes (K).
        mixup_alpha: Beta(alpha, alpha) of a clip's own share in mixup; None does without mixup.
        cutmix_alpha: Beta(alpha, alpha) of the area that stays in cutmix; None does without cutmix.
        cutmix_probability: How often cutmix is chosen where both are on.
        seed: Seed of the run, from 0.
        rank: The process; each mixes its own batches in its own way.
    """

    num_classes: int
    mixup_alpha: float | None = None
    cutmix_alpha: float | None = None
    cutmix_probability: float = 0.5
    seed: int = 0
    rank: int = 0

    def __post_init__(self) -> None:
        if self.mixup_alpha is None and self.cutmix_alpha is None:
            raise DataError("mixing the clips of a batch needs mixup_alpha or cutmix_alpha")

    def __call__(self, clips: Tensor, labels: Tensor, epoch: int, batch: int, /) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            clips: Normalised (N, ..., H, W).
            labels: (N,) int64, or the share of each class (N, K), on the same device.
            epoch: Epoch, from 0.
            batch: Batch of the epoch, from 0.

        Returns:
            The mixed clips and their targets, float32 (N, K).
        """
        rng = np.random.default_rng([self.seed, epoch, batch, self.rank, _STREAM])
        permutation = torch.from_numpy(rng.permutation(len(clips))).to(clips.device, non_blocking=True)
        targets = labels if labels.is_floating_point() else F.one_hot(labels, self.num_classes).float()
        chooses_cutmix = rng.random() < self.cutmix_probability
        if self.mixup_alpha is None or (self.cutmix_alpha is not None and chooses_cutmix):
            assert self.cutmix_alpha is not None
            lam = rng.beta(self.cutmix_alpha, self.cutmix_alpha)
            height, width = clips.shape[-2:]
            y, x = int(rng.integers(height)), int(rng.integers(width))
            box = cutmix_box(lam, y=y, x=x, height=height, width=width)
            return cutmix(clips, targets, box=box, permutation=permutation)
        lam = rng.beta(self.mixup_alpha, self.mixup_alpha)
        return mixup(clips, targets, lam=lam, permutation=permutation)
