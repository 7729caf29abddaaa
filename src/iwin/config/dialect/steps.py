"""Upstream's words for the steps of a pipeline.

A step is one of four things here: a way to sample frames (`sampling()`), something done to the frames
(`operations()`), the normalisation (`normalize()`), or plumbing such as Collect that our data room does by itself.
Upstream gives sizes as (width, height), ours are (height, width).
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from iwin.config import schema
from iwin.config.dialect.words import NoEffect, Words
from iwin.config.schema import Fraction, Interval, TransformSettings

_Transforms = tuple[TransformSettings, ...]

_DecoderOption = Annotated[Any, NoEffect("our own reader decodes")]


def _pair(size: Any) -> Any:
    return (size, size) if isinstance(size, int) else size


BoxSize = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_pair)]
"""One side of a square, or (width, height)."""


def _ours(size: tuple[int, int]) -> schema.Size:
    width, height = size
    return height, width


_FILLS: dict[str, Literal["mean", "color", "noise"]] = {"const": "mean", "rand": "color", "pixel": "noise"}


class Step(Words):
    """Base of all steps; by itself, plumbing."""

    on_pixels: ClassVar[bool] = False
    """Whether the step needs pixel values, so that it must stand before Normalize."""

    def sampling(self) -> schema.SamplingSettings | None:
        """How the step samples frames, if it does."""
        return None

    def operations(self) -> _Transforms:
        """What the step does to the frames."""
        return ()

    def normalize(self) -> schema.NormalizeSettings | None:
        """The normalisation, if the step is that."""
        return None


# ------------------------------------------------------------------------------------------------ sampling


class SampleFrames(Step):
    """Clips at random or at fixed places."""

    type: Literal["SampleFrames"]
    clip_len: PositiveInt
    frame_interval: PositiveInt = 1
    num_clips: PositiveInt = 1
    temporal_jitter: bool = False
    twice_sample: bool = False
    out_of_bound_opt: Literal["loop", "repeat_last"] = "loop"
    test_mode: bool = False
    frame_uniform: bool = False
    keep_tail_frames: Literal[False] = False
    start_index: Annotated[Any, NoEffect("the dataset's start_index counts")] = None

    def sampling(self) -> schema.SamplingSettings:
        """The sampling in our words."""
        return schema.SamplingSettings(
            clip_len=self.clip_len,
            frame_interval=self.frame_interval,
            num_clips=self.num_clips,
            temporal_jitter=self.temporal_jitter,
            twice_sample=self.twice_sample,
            out_of_bound=self.out_of_bound_opt,
            uniform=self.frame_uniform,
            test_mode=self.test_mode,
        )


class UniformSampleFrames(Step):
    """One frame from each of clip_len segments; under both names that it has had."""

    type: Literal["UniformSampleFrames", "UniformSample"]
    clip_len: PositiveInt
    num_clips: PositiveInt = 1
    test_mode: bool = False
    seed: Annotated[Any, NoEffect("fixed clips take the middle of each segment")] = 255

    def sampling(self) -> schema.SamplingSettings:
        """The sampling in our words."""
        return schema.SamplingSettings(
            clip_len=self.clip_len, num_clips=self.num_clips, uniform=True, test_mode=self.test_mode
        )


# ------------------------------------------------------------------------------------------------ geometry


class Resize(Step):
    """To a short side, into a box, or to a size."""

    on_pixels = True
    type: Literal["Resize"]
    scale: tuple[int, int]
    """(width, height); -1 for one of them makes the other the short side."""
    keep_ratio: bool = True
    interpolation: Literal["bilinear"] = "bilinear"
    lazy: Literal[False] = False

    @model_validator(mode="after")
    def _scale_fits(self) -> Self:
        low, high = sorted(self.scale)
        if high < 1 or low < (1 if not self.keep_ratio else -1) or low == 0:
            rule = "(width, height)" if not self.keep_ratio else "(width, height) or (-1, short side)"
            raise ValueError(f"scale {self.scale} should be {rule}")
        return self

    def operations(self) -> _Transforms:
        """The resize in our words."""
        if not self.keep_ratio:
            return (schema.Resize(size=_ours(self.scale)),)
        if -1 in self.scale:
            return (schema.Resize(short_side=max(self.scale)),)
        return (schema.Resize(fit=_ours(self.scale)),)


class RandomResizedCrop(Step):
    """A box of random area and shape."""

    type: Literal["RandomResizedCrop"]
    area_range: Interval = (0.08, 1.0)
    aspect_ratio_range: Interval = (3 / 4, 4 / 3)
    lazy: Literal[False] = False

    def operations(self) -> _Transforms:
        """The crop in our words."""
        crop = schema.RandomResizedCrop(area_range=self.area_range, aspect_ratio_range=self.aspect_ratio_range)
        return (crop,)


class RandomCrop(Step):
    """A square at a random place."""

    type: Literal["RandomCrop"]
    size: PositiveInt
    lazy: Literal[False] = False

    def operations(self) -> _Transforms:
        """The crop in our words."""
        return (schema.RandomCrop(size=self.size),)


class CenterCrop(Step):
    """The central box."""

    type: Literal["CenterCrop"]
    crop_size: BoxSize = (224, 224)
    lazy: Literal[False] = False

    def operations(self) -> _Transforms:
        """The crop in our words."""
        return (schema.CenterCrop(size=_ours(self.crop_size)),)


class ThreeCrop(Step):
    """Three boxes along the long side."""

    type: Literal["ThreeCrop"]
    crop_size: BoxSize

    def operations(self) -> _Transforms:
        """The crops in our words."""
        return (schema.ThreeCrop(size=_ours(self.crop_size)),)


class TenCrop(Step):
    """Corners and centre, each also mirrored."""

    type: Literal["TenCrop"]
    crop_size: BoxSize

    def operations(self) -> _Transforms:
        """The crops in our words."""
        return (schema.TenCrop(size=_ours(self.crop_size)),)


class MultiScaleCrop(Step):
    """A box of one of a few scales and shapes."""

    type: Literal["MultiScaleCrop"]
    input_size: BoxSize
    scales: tuple[PositiveFloat, ...] = (1.0,)
    max_wh_scale_gap: NonNegativeInt = 1
    random_crop: bool = False
    num_fixed_crops: Literal[5, 13] = 5
    lazy: Literal[False] = False

    def operations(self) -> _Transforms:
        """The crop in our words."""
        crop = schema.MultiScaleCrop(
            size=_ours(self.input_size),
            scales=self.scales,
            max_scale_gap=self.max_wh_scale_gap,
            random_place=self.random_crop,
            fixed_places=self.num_fixed_crops,
        )
        return (crop,)


class Flip(Step):
    """Mirror with a probability."""

    type: Literal["Flip"]
    flip_ratio: Fraction = 0.5
    direction: Literal["horizontal", "vertical"] = "horizontal"
    flip_label_map: dict[NonNegativeInt, NonNegativeInt] | None = None
    lazy: Literal[False] = False

    def operations(self) -> _Transforms:
        """The flip in our words; one that never happens is none."""
        if not self.flip_ratio:
            return ()
        label_map = tuple(sorted((self.flip_label_map or {}).items()))
        return (schema.Flip(probability=self.flip_ratio, direction=self.direction, label_map=label_map),)


# ------------------------------------------------------------------------------------------------ colour


class ColorJitter(Step):
    """Random colour changes."""

    on_pixels = True
    type: Literal["ColorJitter"]
    brightness: NonNegativeFloat = 0.5
    contrast: NonNegativeFloat = 0.5
    saturation: NonNegativeFloat = 0.5
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1

    def operations(self) -> _Transforms:
        """The jitter in our words."""
        jitter = schema.ColorJitter(
            brightness=self.brightness, contrast=self.contrast, saturation=self.saturation, hue=self.hue
        )
        return (jitter,)


class RandAugment(Words):
    """The one augmenter that Imgaug is used with."""

    type: Literal["RandAugment"]
    n: PositiveInt = 2
    m: NonNegativeInt = 9


class Imgaug(Step):
    """Augmenters of the imgaug library."""

    on_pixels = True
    type: Literal["Imgaug"]
    transforms: tuple[RandAugment, ...]

    def operations(self) -> _Transforms:
        """The augmenters in our words."""
        return tuple(schema.RandAugment(num_ops=augment.n, magnitude=augment.m) for augment in self.transforms)


class RandomErasing(Step):
    """Random boxes filled; upstream has it after Normalize, where zero is the mean colour."""

    type: Literal["RandomErasing"]
    probability: Fraction = 0.5
    min_area: PositiveFloat = 0.02
    max_area: PositiveFloat = 1 / 3
    min_aspect: PositiveFloat = 0.3
    max_aspect: PositiveFloat | None = None
    mode: Literal["const", "rand", "pixel"] = "const"
    min_count: PositiveInt = 1
    max_count: PositiveInt | None = None

    @property
    def area_range(self) -> tuple[float, float]:
        """Lowest and highest share of the frame."""
        return self.min_area, self.max_area

    @property
    def aspect_range(self) -> tuple[float, float]:
        """Lowest and highest width by height."""
        return self.min_aspect, self.max_aspect or 1 / self.min_aspect

    @property
    def count_range(self) -> tuple[int, int]:
        """Lowest and highest number of boxes."""
        return self.min_count, self.max_count or self.min_count

    @model_validator(mode="after")
    def _ranges_fit(self) -> Self:
        ranges = {"area": self.area_range, "aspect": self.aspect_range, "count": self.count_range}
        for what, (lowest, highest) in ranges.items():
            if lowest > highest:
                raise ValueError(f"min_{what} {lowest} is above max_{what} {highest}")
        return self

    def operations(self) -> _Transforms:
        """The erasing in our words."""
        erasing = schema.RandomErasing(
            probability=self.probability,
            area_range=self.area_range,
            aspect_ratio_range=self.aspect_range,
            fill=_FILLS[self.mode],
            count_range=self.count_range,
        )
        return (erasing,)


class Normalize(Step):
    """Mean and standard deviation, and the order of the channels."""

    type: Literal["Normalize"]
    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    to_bgr: bool = False
    adjust_magnitude: Literal[False] = False

    def normalize(self) -> schema.NormalizeSettings:
        """The normalisation in our words."""
        return schema.NormalizeSettings(mean=self.mean, std=self.std, bgr=self.to_bgr)


# ------------------------------------------------------------------------------------------------ plumbing


class OpenVideo(Step):
    """A decoder opens the file."""

    type: Literal["DecordInit", "OpenCVInit", "PyAVInit"]
    io_backend: _DecoderOption = "disk"
    num_threads: _DecoderOption = 1


class DecodeVideo(Step):
    """A decoder reads the frames."""

    type: Literal["DecordDecode", "OpenCVDecode", "PyAVDecode"]
    multi_thread: _DecoderOption = False
    mode: _DecoderOption = "accurate"


class RawFrameDecode(Step):
    """Frames are read from image files."""

    type: Literal["RawFrameDecode", "FrameSelector"]
    io_backend: _DecoderOption = "disk"
    decoding_backend: _DecoderOption = "cv2"


class FormatShape(Step):
    """The shape of what the model gets."""

    type: Literal["FormatShape"]
    input_format: Literal["NCTHW"]
    collapse: Literal[False] = False


class Collect(Step):
    """What a sample holds."""

    type: Literal["Collect"]
    keys: tuple[str, ...]
    meta_keys: tuple[str, ...] = ()
    meta_name: str = "img_meta"


class ToTensor(Step):
    """What becomes a tensor."""

    type: Literal["ToTensor"]
    keys: tuple[str, ...]


AnyStep = Annotated[
    SampleFrames
    | UniformSampleFrames
    | Resize
    | RandomResizedCrop
    | RandomCrop
    | CenterCrop
    | ThreeCrop
    | TenCrop
    | MultiScaleCrop
    | Flip
    | ColorJitter
    | Imgaug
    | RandomErasing
    | Normalize
    | OpenVideo
    | DecodeVideo
    | RawFrameDecode
    | FormatShape
    | Collect
    | ToTensor,
    Field(discriminator="type"),
]
