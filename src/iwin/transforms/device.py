"""The last steps of a pipeline, left for the device: flips and erasing.

Their random numbers are drawn where the clip is read, and need no pixels. What they decide travels with the clip and is
carried out where its pixels are cheap to move, with the same result bit for bit.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from iwin.transforms.augment import Patch, RandomErasing
from iwin.transforms.geometry import Compose, Flip

Edit = Flip | Patch
"""Something decided: that a clip is mirrored, or what is written onto it."""


class Split(NamedTuple):
    """A pipeline in two parts.

    Attributes:
        host: the steps for where the clip is read.
        device: those for the device.
    """

    host: Compose
    device: tuple[Flip | RandomErasing, ...]


def split_steps(steps: Compose) -> Split:
    """Cut off the flips and erasings that a pipeline ends with."""
    late: list[Flip | RandomErasing] = []
    for step in reversed(steps.transforms):
        if not isinstance(step, Flip | RandomErasing):
            break
        late.append(step)
    kept = steps.transforms[: len(steps.transforms) - len(late)]
    return Split(Compose(kept), tuple(reversed(late)))


def decide(
    steps: tuple[Flip | RandomErasing, ...], *, size: tuple[int, int], label: int, rng: np.random.Generator
) -> tuple[tuple[Edit, ...], int]:
    """Draw what some steps do, in their order.

    Args:
        steps: as `split_steps` gives them.
        size: (height, width) of the frames.
        label: class of the clip.
        rng: source of all random parameters; the numbers drawn are those that the steps would draw.

    Returns:
        What to do, and the class of the clip then.
    """
    edits: list[Edit] = []
    for step in steps:
        if isinstance(step, RandomErasing):
            edits += step.patches(*size, rng)
        elif step.decide(rng):
            edits.append(step)
            label = step.mirror_label(label)
    return tuple(edits), label


def carry_out(views: Tensor, edits: tuple[Edit, ...]) -> None:
    """Do what was decided to the views of a sample, uint8 (V, T, H, W, 3), on any device, in place."""
    for edit in edits:
        if isinstance(edit, Patch):
            edit.apply(views)
        else:
            views.copy_(edit.mirror(views))
