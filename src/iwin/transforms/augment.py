"""Strong augmentation of uint8 clips: RandAugment and random erasing.

A clip is a uint8 tensor (V, T, H, W, 3), as in `geometry`; what is drawn holds for all frames of all views. Colours are
RGB on the 0-255 scale.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iwin.errors import DataError
from iwin.transforms.colour import image_operations
from iwin.transforms.geometry import Size, check_box_ranges, first_fitting_size

Colour = tuple[float, float, float]
"""Red, green, blue, each 0 .. 255."""

IMAGENET_MEAN: Colour = (123.675, 116.28, 103.53)
IMAGENET_STD: Colour = (58.395, 57.12, 57.375)

# ----------------------------------------------------------------------------------------- RandAugment

MAX_MAGNITUDE = 30
"""The strongest magnitude of RandAugment."""

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
)
"""What RandAugment chooses from: torchvision's list."""

ERASING_ATTEMPTS = 10
"""Boxes that RandomErasing draws before it leaves one out."""


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """A few random image operations of one strength (Cubuk et al., arXiv 1909.13719).

    `num_ops` operations out of `OPERATIONS` are drawn, each from all of them, and applied one after the other; their
    strengths are torchvision's (see `operate`). The original takes imgaug's RandAugment, which nobody keeps up. Its
    list is the same and also inverts, blurs, smooths and cuts a square out; it never takes an operation twice; and it
    first mirrors every second clip and crops a little, even where the recipe switches mirroring off because classes
    tell left from right. None of that is done here.

    Attributes:
        num_ops: Operations a clip goes through.
        magnitude: Strength, 0 .. 30.
        mean: Colour of what comes into view where frames are moved, turned or sheared.
    """

    num_ops: int = 2
    magnitude: int = 9
    mean: Colour = IMAGENET_MEAN

    def __post_init__(self) -> None:
        if not 0 <= self.magnitude <= MAX_MAGNITUDE:
            raise DataError(f"the magnitude of RandAugment is 0 .. {MAX_MAGNITUDE}, not {self.magnitude}")

    def __call__(self, clip: Tensor, rng: np.random.Generator, /) -> Tensor:
        """Draw operations and directions, and apply them."""
        strength = self.magnitude / MAX_MAGNITUDE
        chosen = rng.integers(len(OPERATIONS), size=self.num_ops)
        reverse = rng.random(self.num_ops) < 0.5
        for index, negative in zip(chosen, reverse, strict=True):
            clip = operate(clip, OPERATIONS[index], strength=-strength if negative else strength, fill=self.mean)
        return clip


def operate(clip: Tensor, name: str, *, strength: float, fill: Colour) -> Tensor:
    """Apply one of `OPERATIONS`, by torchvision's function of that name; moved pixels are not interpolated.

    Full strength is: a shear of 0.3 (about the upper left corner), a shift of 150 / 331 of the side, a rotation by 30
    degrees, a factor of 1 +- 0.9 (brightness, colour, contrast, sharpness), 4 bits left, everything inverted. The
    contrast and the equalisation of a frame follow from that frame alone.

    Args:
        clip: uint8 (V, T, H, W, 3).
        name: The operation.
        strength: -1 .. 1. The sign gives the direction where there is one; "posterize" and "solarize" have none, and
            "identity", "auto_contrast" and "equalize" no strength.
        fill: Colour of what comes into view.

    Returns:
        uint8 (V, T, H, W, 3); "identity" returns `clip` itself, the others new memory, channels last.
    """
    operations, frames = image_operations(), clip.movedim(-1, -3)
    height, width = clip.shape[2:4]
    shear = math.degrees(math.atan(0.3 * strength))
    factor = 1 + 0.9 * strength
    match name:
        case "identity":
            return clip
        case "shear_x":
            return _move_pixels(clip, fill, shear=[shear, 0.0], center=[0, 0])
        case "shear_y":
            return _move_pixels(clip, fill, shear=[0.0, shear], center=[0, 0])
        case "translate_x":
            return _move_pixels(clip, fill, translate=[int(150 / 331 * width * strength), 0])
        case "translate_y":
            return _move_pixels(clip, fill, translate=[0, int(150 / 331 * height * strength)])
        case "rotate":
            return _move_pixels(clip, fill, angle=-30 * strength)  # affine turns clockwise, rotate the other way
        case "brightness":
            frames = operations.adjust_brightness(frames, factor)
        case "color":
            frames = operations.adjust_saturation(frames, factor)
        case "contrast":
            frames = operations.adjust_contrast(frames, factor)
        case "sharpness":
            frames = operations.adjust_sharpness(frames, factor)
        case "posterize":
            frames = operations.posterize(frames, round(8 - 4 * abs(strength)))
        case "solarize":
            frames = operations.solarize(frames, 255 * (1 - abs(strength)))
        case "auto_contrast":
            frames = operations.autocontrast(frames.contiguous())  # channels first: a third of the time
        case "equalize":
            frames = operations.equalize(frames)
        case _:
            raise AssertionError(name)
    return frames.movedim(-3, -1).contiguous()


def _move_pixels(clip: Tensor, fill: Colour, **movement: Any) -> Tensor:
    """Torchvision's `affine`, nearest pixel, of all frames.

    What it moves is one map of pixel numbers, which then tells for each pixel of every frame where it comes from: a
    fraction of the time that it takes to move the frames one by one, and equal to it.
    """
    height, width = clip.shape[2:4]
    numbers = torch.arange(height * width, dtype=torch.float32).reshape(1, height, width)  # exact up to 2^24
    still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    sources = image_operations().affine(numbers, **still | movement, fill=[-1.0]).long().flatten()
    moved = clip.flatten(2, 3).index_select(2, sources.clamp(min=0))
    moved[:, :, sources < 0] = torch.tensor(fill).round().to(torch.uint8)
    return moved.unflatten(2, (height, width))


# -------------------------------------------------------------------------------------- random erasing


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Fill random boxes (Zhong et al., arXiv 1708.04896), the same in all frames of all views.

    The boxes are drawn as in timm, whose RandomErasing the original applies to each frame with the same random numbers.
    The original does it after normalisation, where it writes 0 ("mean") or standard normal numbers ("color", "noise").
    Here the same is written before it, as mean + std * number, rounded to a grey level and cut at 0 and 255. Once
    normalised, "mean" is within half a grey level (0.009) of the original's 0; of the normal numbers, those below -1.8
    to -2.1 and above 2.2 to 2.6, as the channel has it, are cut (2 to 4 % and about 1 %).

    Attributes:
        probability: How often anything is erased.
        area_range: Area of the boxes together relative to the frame's, uniform.
        aspect_ratio_range: Height / width of a box, log-uniform. A box that is not smaller than the frame in both
            directions is drawn again, ten times in all; then it is left out.
        fill: What is written: the mean colour, one random colour for each box, or a random colour for each pixel.
        count_range: Lowest and highest number of boxes.
        mean: Mean of each channel that the model's input is normalised with.
        std: Standard deviation of each channel, likewise.
    """

    probability: float = 0.5
    area_range: tuple[float, float] = (0.02, 1 / 3)
    aspect_ratio_range: tuple[float, float] = (0.3, 1 / 0.3)
    fill: Literal["mean", "color", "noise"] = "mean"
    count_range: tuple[int, int] = (1, 1)
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD

    def __post_init__(self) -> None:
        check_box_ranges(area_range=self.area_range, aspect_ratio_range=self.aspect_ratio_range)
        if not 1 <= self.count_range[0] <= self.count_range[1]:
            raise DataError(f"count_range must rise from 1 or more, got {self.count_range}")

    def __call__(self, clip: Tensor, rng: np.random.Generator, /) -> Tensor:
        """Draw whether and what to erase; an unchanged clip is returned as it is."""
        height, width = clip.shape[2:4]
        patches = self.patches(height, width, rng)
        erased = clip.clone() if patches else clip
        for patch in patches:
            patch.apply(erased)
        return erased

    def patches(self, height: int, width: int, rng: np.random.Generator, /) -> list["Patch"]:
        """What a call writes onto frames of height x width, by the same random numbers."""
        if rng.random() >= self.probability:
            return []
        count = int(rng.integers(*self.count_range, endpoint=True))
        flat, tall = self.aspect_ratio_range
        patches = []
        for _ in range(count):
            areas = rng.uniform(*self.area_range, size=ERASING_ATTEMPTS) * (height * width / count)
            aspect_ratios = np.exp(rng.uniform(math.log(flat), math.log(tall), size=ERASING_ATTEMPTS))
            size = first_erasable_size(areas, aspect_ratios, height=height, width=width)
            if size is None:
                continue
            top = int(rng.integers(height - size[0], endpoint=True))
            left = int(rng.integers(width - size[1], endpoint=True))
            patches.append(Patch(top, left, size, self._pixels(size, rng)))
        return patches

    def _pixels(self, size: Size, rng: np.random.Generator) -> Tensor:
        """Values to write, uint8, of shape (3,) or (height, width, 3)."""
        pixels = np.array(self.mean)
        if self.fill != "mean":
            shape = (3,) if self.fill == "color" else (*size, 3)
            pixels = pixels + self.std * rng.standard_normal(shape)
        return torch.from_numpy(np.rint(pixels).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Patch:
    """A box with what is written into it, in all frames alike.

    Attributes:
        top: first row of the box.
        left: first column of the box.
        size: (height, width) of the box.
        pixels: uint8, of shape (3,) or (height, width, 3).
    """

    top: int
    left: int
    size: Size
    pixels: Tensor

    def apply(self, clip: Tensor) -> None:
        """Write into a clip (V, T, H, W, 3) on any device."""
        height, width = self.size
        pixels = self.pixels.to(clip.device, non_blocking=True)
        clip[:, :, self.top : self.top + height, self.left : self.left + width] = pixels


def first_erasable_size(
    areas: npt.NDArray[np.float64], aspect_ratios: npt.NDArray[np.float64], *, height: int, width: int
) -> Size | None:
    """Size of the first candidate box that leaves something of a frame in both directions.

    Args:
        areas: Areas of the candidates in pixels, shape (n,).
        aspect_ratios: Their height / width, shape (n,).
        height: Height of the frame.
        width: Width of the frame.

    Returns:
        (height, width), sides rounded half to even; None where there is no such candidate.
    """
    return first_fitting_size(areas, 1 / aspect_ratios, height=height - 1, width=width - 1)
