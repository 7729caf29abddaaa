"""Planning before pixels: what a pipeline does to single pictures, known before anything is decoded.

Resize and the crops need the size of the frames and their random numbers, no pixels. So the steps that a pipeline
begins with can be worked out first, and be done to each picture as soon as it is decoded: only the box that is kept is
converted to RGB, and a picture is resized while it is in the processor's cache.

    plan = plan_clip(transform, (video.height, video.width), rng)
    frames_THWC = video.get_frames(indices, plan.framing)
    clip = plan.rest(frames_THWC[None], rng)
"""

from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from iwin.transforms.bilinear import Cutout, cut, resize, takes
from iwin.transforms.boxes import Box, Size
from iwin.transforms.geometry import Compose, Crop, Resize, Transform, crop

Scaling = Literal["exact", "crop_first", "swscale"]
"""What may be done to spare work.

"exact": only what leaves every pixel as the listed steps make it, one after the other.
"crop_first": a crop behind a resize is taken from the unscaled picture, at the pixels nearest to where its borders
    fall, and scaled once, to the size that the steps behind it would give: pixels are interpolated once, not twice.
"swscale": the same, and the decoder's own library (FFmpeg's libswscale, bilinear) scales before it converts to RGB. It
    averages over the pixels that it leaves out, which Resize does not.
"""


class FrameSteps(NamedTuple):
    """Crops and resizes of pictures.

    Attributes:
        steps: boxes, sizes (height, width) and cutouts, in their order; at least one.
    """

    steps: tuple[Box | Size | Cutout, ...]

    @property
    def size(self) -> Size:
        """(height, width) of the result."""
        return _size_after(self.steps[-1])

    def __call__(self, frames_THWC: Tensor, /) -> Tensor:
        """Apply them to uint8 pictures (T, H, W, 3)."""
        clip = frames_THWC[None]
        for step in self.steps:
            if isinstance(step, Cutout):
                clip = cut(clip[0], step)[None]
            else:
                clip = crop(clip, step) if isinstance(step, Box) else resize(clip, step)
        return clip[0]


def _size_after(step: Box | Size | Cutout) -> Size:
    if isinstance(step, Cutout):
        step = step.box
    return (step.height, step.width) if isinstance(step, Box) else step


class Framing(NamedTuple):
    """What is read of each picture.

    Attributes:
        box: the part of it as displayed; None for all of it.
        size: (height, width) that the decoder scales that to; None for the size that it has. PyAV alone can do that, by
            libswscale: bilinear, averaging where it shrinks.
        steps: crops and resizes after that, done as soon as a picture is decoded; None for none.
    """

    box: Box | None = None
    size: Size | None = None
    steps: FrameSteps | None = None


WHOLE = Framing()
"""Whole pictures, as they are."""


class Plan(NamedTuple):
    """How to read a clip, and what remains to be done to it.

    Attributes:
        framing: what is read of each picture.
        rest: what remains for the clip; a LabelTransform.
    """

    framing: Framing
    rest: Compose


def plan_clip(transform: Transform, size: Size, rng: np.random.Generator, *, scaling: Scaling = "exact") -> Plan:
    """Work out the steps that need no pixels.

    Args:
        transform: all that happens to the clip.
        size: (height, width) of the video's frames.
        rng: source of all random parameters. Plan and rest together draw the numbers that `transform` draws.
        scaling: what may be done to spare work.

    Raises:
        DataError: a crop does not fit into the frames.
    """
    transforms = transform.transforms if isinstance(transform, Compose) else (transform,)
    steps: list[Box | Size] = []
    current, done = size, 0
    for step in transforms:
        if isinstance(step, Resize):
            target = step.output_size(*current)
            if target != current:
                steps.append(target)
        elif isinstance(step, Crop):
            box = step.box(*current, rng)
            target = _size_after(box)
            if target != current:
                steps.append(box)
        else:
            break
        current, done = target, done + 1
    if scaling != "exact":
        steps = _cropped_first(steps, size)
    rest = Compose(transforms[done:])
    if scaling == "exact" and len(steps) > 1:
        resized, kept, *others = steps
        if isinstance(kept, Box) and not isinstance(resized, Box) and takes(cutout := Cutout(size, resized, kept)):
            return Plan(Framing(cutout.source, steps=FrameSteps((cutout, *others))), rest)
    first = steps[0] if steps and isinstance(steps[0], Box) else None
    if first is not None:
        del steps[0]
    by_decoder = _size_after(steps.pop(0)) if steps and scaling == "swscale" else None
    return Plan(Framing(first, by_decoder, FrameSteps(tuple(steps)) if steps else None), rest)


def _cropped_first(steps: list[Box | Size], size: Size) -> list[Box | Size]:
    """At most one box, then at most one size, that give nearly what the steps give."""
    top, left, height, width = 0.0, 0.0, float(size[0]), float(size[1])
    current = size
    for step in steps:
        if isinstance(step, Box):
            y, x = height / current[0], width / current[1]
            top, left, height, width = top + step.top * y, left + step.left * x, step.height * y, step.width * x
        current = _size_after(step)
    first_row, first_column = min(round(top), size[0] - 1), min(round(left), size[1] - 1)
    rows = max(round(top + height) - first_row, 1)
    columns = max(round(left + width) - first_column, 1)
    box = Box(first_row, first_column, min(rows, size[0] - first_row), min(columns, size[1] - first_column))
    reduced: list[Box | Size] = [] if _size_after(box) == size else [box]
    return reduced if _size_after(box) == current else [*reduced, current]
