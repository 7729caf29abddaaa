"""Where the pixels of a clip come from: resize, crops and flip of uint8 clips.

A clip is a uint8 tensor of shape (V, T, H, W, 3), values 0-255: V views of a video (its clips, later times its crops)
of T frames, channels last. One draw of a transform's parameters holds for all frames of all views. Crops are slices
that share the input's memory; only Resize, ThreeCrop, TenCrop and a Flip that flips copy. Sizes are (height, width).

The rules, roundings included, are those of the original Video Iwin Transformer's pipeline, on which its published
scores rest.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iwin.errors import DataError
from iwin.transforms.bilinear import resize as resize
from iwin.transforms.boxes import Box as Box
from iwin.transforms.boxes import Size as Size
from iwin.transforms.memory import empty_clip


class Transform(Protocol):
    """A step from clip to clip."""

    def __call__(self, clip: Tensor, rng: np.random.Generator, /) -> Tensor:
        """Transform a clip.

        Args:
            clip: uint8 (V, T, H, W, 3); not written to.
            rng: Source of all random parameters.

        Returns:
            uint8 (V', T, H', W', 3), possibly a view of `clip`'s memory.

        Raises:
            DataError: The clip's size does not suit the transform.
        """
        ...


@runtime_checkable
class LabelTransform(Transform, Protocol):
    """A transform after which a clip can show another class: a mirrored "left" is a "right"."""

    def with_label(self, clip: Tensor, label: int, rng: np.random.Generator, /) -> tuple[Tensor, int]:
        """Transform a clip as a call does, with the same random parameters, and its class with it.

        Args:
            clip: uint8 (V, T, H, W, 3); not written to.
            label: Class that the clip shows.
            rng: Source of all random parameters.

        Returns:
            The transformed clip and the class that it shows.
        """
        ...


def transform_with_label(
    transform: Transform, clip: Tensor, label: int, rng: np.random.Generator
) -> tuple[Tensor, int]:
    """Apply any transform to a clip and the class it shows; most leave the class alone."""
    if isinstance(transform, LabelTransform):
        return transform.with_label(clip, label, rng)
    return transform(clip, rng), label


@runtime_checkable
class Crop(Transform, Protocol):
    """A transform that keeps one box of all frames, which it can tell before there are frames."""

    def box(self, height: int, width: int, rng: np.random.Generator, /) -> Box:
        """The box, for frames of height x width, by the same random numbers as a call draws.

        Raises:
            DataError: The box does not fit into the frames.
        """
        ...


@dataclass(frozen=True)
class Compose:
    """Several transforms, one after the other; itself a LabelTransform."""

    transforms: tuple[Transform, ...]

    def __call__(self, clip: Tensor, rng: np.random.Generator, /) -> Tensor:
        """Apply all of them in their order."""
        for transform in self.transforms:
            clip = transform(clip, rng)
        return clip

    def with_label(self, clip: Tensor, label: int, rng: np.random.Generator, /) -> tuple[Tensor, int]:
        """Apply all of them in their order to a clip and its class."""
        for transform in self.transforms:
            clip, label = transform_with_label(transform, clip, label, rng)
        return clip, label


# ---------------------------------------------------------------------------------------------- resize


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Resize with bilinear interpolation, without antialiasing. Give exactly one of the attributes.

    Attributes:
        short_side: Scale so that the short side has this many pixels, keeping the aspect ratio.
        size: Or scale to exactly (height, width).
        fit: Or scale to the largest size that keeps the aspect ratio and has no long side above max(fit), no short
            side above min(fit).
    """

    short_side: int | None = None
    size: Size | None = None
    fit: Size | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.short_side, self.size, self.fit) if value is not None]
        if len(given) != 1:
            raise DataError(f"Resize takes exactly one of short_side, size and fit, not {len(given)} of them")

    def output_size(self, height: int, width: int) -> Size:
        """Size of the result for frames of height x width; half pixels round up."""
        if self.size is not None:
            return self.size[0], self.size[1]
        if self.fit is not None:
            factor = min(max(self.fit) / max(height, width), min(self.fit) / min(height, width))
        else:
            assert self.short_side is not None
            factor = self.short_side / min(height, width)
        size = int(height * factor + 0.5), int(width * factor + 0.5)
        if 0 in size:
            raise DataError(f"frames of {_text(height, width)} become {_text(*size)}: too narrow for {self}")
        return size

    def __call__(self, clip: Tensor, _rng: np.random.Generator, /) -> Tensor:
        """Resize; a clip that has the size already is returned as it is."""
        height, width = clip.shape[2:4]
        size = self.output_size(height, width)
        return clip if size == (height, width) else resize(clip, size)


# ----------------------------------------------------------------------------------------------- crops


def _text(height: int, width: int) -> str:
    return f"{height}x{width} (height x width)"


def crop(clip: Tensor, box: Box) -> Tensor:
    """The box as a view of the clip's memory.

    Args:
        clip: (V, T, H, W, 3).
        box: What to keep; it lies inside.
    """
    return clip[:, :, box.top : box.top + box.height, box.left : box.left + box.width]


def _margins(height: int, width: int, size: Size) -> tuple[int, int]:
    """Pixels by which frames are higher and wider than a crop.

    Raises:
        DataError: The crop does not fit.
    """
    if size[0] > height or size[1] > width:
        raise DataError(
            f"a crop of {_text(*size)} does not fit into frames of {_text(height, width)}: "
            "put a Resize before it or make the crop smaller"
        )
    return height - size[0], width - size[1]


@dataclass(frozen=True)
class CenterCrop:
    """The central box.

    Attributes:
        size: (height, width) of the box.
    """

    size: Size

    def box(self, height: int, width: int, _rng: np.random.Generator, /) -> Box:
        """The box; half pixels round down."""
        margin_y, margin_x = _margins(height, width, self.size)
        return Box(margin_y // 2, margin_x // 2, *self.size)

    def __call__(self, clip: Tensor, rng: np.random.Generator, /) -> Tensor:
        """Slice the box out of all frames."""
        return crop(clip, self.box(clip.shape[2], clip.shape[3], rng))


@dataclass(frozen=True)
class RandomCrop:
    """A square box at a random place.

    Attributes:
        size: Side of the box.
    """

    size: int

    def box(self, height: int, width: int, rng: np.random.Generator, /) -> Box:
        """Draw a place."""
        margins = _margins(height, width, (self.size, self.size))
        # As in the original, the last position is never drawn, except where it is the only one.
        left, top = (int(rng.integers(max(margin, 1))) for margin in reversed(margins))
        return Box(top, left, self.size, self.size)

    def __call__(self, clip: Tensor, rng: np.random.Generator, /) -> Tensor:
        """Draw a place and slice the box out of all frames."""
        return crop(clip, self.box(clip.shape[2], clip.shape[3], rng))


def _joined(clips: list[Tensor]) -> Tensor:
    """The views of all clips (V, T, H, W, 3), which are of one shape, copied into one clip."""
    count, *shape = clips[0].shape
    joined = empty_clip(len(clips) * count, *shape) if clips[0].device.type == "cpu" else None
    return torch.cat(clips, out=joined)


@dataclass(frozen=True)
class ThreeCrop:
    """Three boxes along the long side, each a view of its own.

    All views of the left (or top) box come first, then those of the right (bottom) one, then those of the middle:
    view index = box * V + view. One side of the frames must equal that of the box.

    Attributes:
        size: (height, width) of a box.
    """

    size: Size

    def __call__(self, clip: Tensor, _rng: np.random.Generator, /) -> Tensor:
        """Copy the boxes of V views into 3 V views."""
        margin_y, margin_x = _margins(clip.shape[2], clip.shape[3], self.size)
        if margin_y and margin_x:
            raise DataError(
                f"three crops of {_text(*self.size)} need frames of that height or that width, not of "
                f"{_text(*clip.shape[2:4])}: put a Resize with short_side={min(self.size)} before them"
            )
        # Twice the middle's offset, as in the original: where the margin is odd, the last row or column is not seen.
        y, x = margin_y // 2, margin_x // 2
        return _joined([crop(clip, Box(step * y, step * x, *self.size)) for step in (0, 2, 1)])


_GRID = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3))
"""Places of a box in quarters of the margin, (down, right): corners, centre, middles of the sides, points between."""


def _grid_places(margin_y: int, margin_x: int, count: int) -> list[tuple[int, int]]:
    """(top, left) of the first `count` places of the grid.

    Quarters are rounded down, as in the original: where a margin does not divide by four, the last rows or columns are
    in no box.
    """
    return [(down * (margin_y // 4), right * (margin_x // 4)) for down, right in _GRID[:count]]


@dataclass(frozen=True)
class TenCrop:
    """The four corners and the centre, each also mirrored: ten views of every view.

    The boxes are upper left, upper right, lower left, lower right, centre. All views of a box come before their mirror
    images: view index = (2 * box + mirrored) * V + view.

    Attributes:
        size: (height, width) of a box.
    """

    size: Size

    def __call__(self, clip: Tensor, _rng: np.random.Generator, /) -> Tensor:
        """Copy the boxes of V views into 10 V views."""
        places = _grid_places(*_margins(clip.shape[2], clip.shape[3], self.size), 5)
        boxes = [crop(clip, Box(*place, *self.size)) for place in places]
        return _joined([views for box in boxes for views in (box, box.flip(-2))])


@dataclass(frozen=True, kw_only=True)
class MultiScaleCrop:
    """A box whose sides are the frame's short side times some of `scales`; a Resize to `size` follows it.

    After Wang et al., arXiv 1507.02159.

    Attributes:
        size: (height, width) that the Resize makes of it. A side within 2 pixels of that becomes that, where the frame
            is large enough, to spare the resize.
        scales: What the sides of the box can be, relative to the short side.
        max_scale_gap: How many places apart in `scales` height and width may be.
        random_place: Put the box anywhere instead of at one of the fixed places.
        fixed_places: Corners and centre (5), or these, the middles of the sides and the points between (13).
    """

    size: Size
    scales: tuple[float, ...] = (1.0,)
    max_scale_gap: int = 1
    random_place: bool = False
    fixed_places: Literal[5, 13] = 5

    def __post_init__(self) -> None:
        if not self.scales:
            raise DataError("MultiScaleCrop needs at least one scale")

    def sizes(self, height: int, width: int) -> list[Size]:
        """The boxes drawn from, for frames of height x width; each is as likely as the others."""
        sides = [int(min(height, width) * scale) for scale in self.scales]
        return [
            (_snapped(h, self.size[0], limit=height), _snapped(w, self.size[1], limit=width))
            for i, h in enumerate(sides)
            for j, w in enumerate(sides)
            if abs(i - j) <= self.max_scale_gap
        ]

    def box(self, height: int, width: int, rng: np.random.Generator, /) -> Box:
        """Draw a box."""
        sizes = self.sizes(height, width)
        size = sizes[rng.integers(len(sizes))]
        margin_y, margin_x = _margins(height, width, size)
        if self.random_place:
            left, top = (int(rng.integers(margin, endpoint=True)) for margin in (margin_x, margin_y))
        else:
            top, left = _grid_places(margin_y, margin_x, self.fixed_places)[rng.integers(self.fixed_places)]
        return Box(top, left, *size)

    def __call__(self, clip: Tensor, rng: np.random.Generator, /) -> Tensor:
        """Draw a box and slice it out of all frames."""
        return crop(clip, self.box(clip.shape[2], clip.shape[3], rng))


def _snapped(side: int, target: int, *, limit: int) -> int:
    """The target where a side is less than 3 pixels from it and the frame reaches that far."""
    return target if abs(side - target) < 3 and target <= limit else side


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """A random box by area and aspect ratio; a Resize follows it (Szegedy et al., arXiv 1409.4842).

    The first of `attempts` drawn boxes that fits is taken; if none does, the central square of the short side.

    Attributes:
        area_range: Area of the box relative to the frame's, uniform.
        aspect_ratio_range: Width / height of the box, log-uniform.
        attempts: Number of boxes drawn.
    """

    area_range: tuple[float, float] = (0.08, 1.0)
    aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3)
    attempts: int = 10

    def __post_init__(self) -> None:
        check_box_ranges(area_range=self.area_range, aspect_ratio_range=self.aspect_ratio_range)

    def box(self, height: int, width: int, rng: np.random.Generator, /) -> Box:
        """Draw a box."""
        narrow, wide = self.aspect_ratio_range
        aspect_ratios = np.exp(rng.uniform(math.log(narrow), math.log(wide), size=self.attempts))
        areas = rng.uniform(*self.area_range, size=self.attempts) * (height * width)
        size = first_fitting_size(areas, aspect_ratios, height=height, width=width)
        if size is None:
            return CenterCrop((min(height, width), min(height, width))).box(height, width, rng)
        margin_y, margin_x = _margins(height, width, size)
        left = int(rng.integers(margin_x, endpoint=True))
        top = int(rng.integers(margin_y, endpoint=True))
        return Box(top, left, *size)

    def __call__(self, clip: Tensor, rng: np.random.Generator, /) -> Tensor:
        """Draw a box and slice it out of all frames."""
        return crop(clip, self.box(clip.shape[2], clip.shape[3], rng))


def check_box_ranges(*, area_range: tuple[float, float], aspect_ratio_range: tuple[float, float]) -> None:
    """Refuse ranges that no box can be drawn from.

    Raises:
        DataError: A range does not rise, an area is beyond the frame's, or an aspect ratio is not positive.
    """
    if not 0 < area_range[0] <= area_range[1] <= 1:
        raise DataError(f"area_range must rise within 0 (excluded) .. 1, got {area_range}")
    if not 0 < aspect_ratio_range[0] <= aspect_ratio_range[1]:
        raise DataError(f"aspect_ratio_range must rise and be positive, got {aspect_ratio_range}")


def first_fitting_size(
    areas: npt.NDArray[np.float64], aspect_ratios: npt.NDArray[np.float64], *, height: int, width: int
) -> Size | None:
    """Size of the first candidate box that fits into a frame.

    Args:
        areas: Areas of the candidates in pixels, shape (n,).
        aspect_ratios: Their width / height, shape (n,).
        height: Height of the frame.
        width: Width of the frame.

    Returns:
        (height, width), sides rounded half to even; None where no candidate fits.
    """
    heights = np.rint(np.sqrt(areas / aspect_ratios)).astype(np.int64)
    widths = np.rint(np.sqrt(areas * aspect_ratios)).astype(np.int64)
    fitting = np.flatnonzero((heights <= height) & (widths <= width))
    if fitting.size == 0:
        return None
    return int(heights[fitting[0]]), int(widths[fitting[0]])


# ------------------------------------------------------------------------------------------------ flip


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Mirror the whole clip with a probability.

    One number is drawn whatever the probability is, so that switching flips off changes no other random choice.

    Attributes:
        probability: 0 never flips, 1 always does.
        direction: "horizontal" swaps left and right, "vertical" top and bottom.
        label_map: (class, class of the mirrored clip) for the classes that mirroring changes.
    """

    probability: float = 0.5
    direction: Literal["horizontal", "vertical"] = "horizontal"
    label_map: tuple[tuple[int, int], ...] = ()

    def __call__(self, clip: Tensor, rng: np.random.Generator, /) -> Tensor:
        """Draw once for the clip; an unflipped clip is returned as it is."""
        return self.mirror(clip) if self.decide(rng) else clip

    def with_label(self, clip: Tensor, label: int, rng: np.random.Generator, /) -> tuple[Tensor, int]:
        """The same, and the class that the clip then shows."""
        return (self.mirror(clip), self.mirror_label(label)) if self.decide(rng) else (clip, label)

    def decide(self, rng: np.random.Generator) -> bool:
        """Draw whether to mirror."""
        return bool(rng.random() < self.probability)

    def mirror(self, clip: Tensor) -> Tensor:
        """The mirror image of a clip (..., H, W, 3), as a copy."""
        return clip.flip(-2 if self.direction == "horizontal" else -3)

    def mirror_label(self, label: int) -> int:
        """The class of the mirror image of a clip of a class."""
        return dict(self.label_map).get(label, label)
