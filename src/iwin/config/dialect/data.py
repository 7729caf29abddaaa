"""Upstream's words for the data: datasets, their pipelines, the loaders."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from iwin.config import schema
from iwin.config.dialect.steps import AnyStep, Normalize, RandomErasing, RawFrameDecode
from iwin.config.dialect.words import KeyPath, NoEffect, Problem, Words
from iwin.config.schema import Fraction

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class Dataset(Words):
    """What both kinds of dataset share."""

    ann_file: str | None = None
    """None, our extension, reads class folders below `data_prefix`."""
    data_prefix: str | None = None
    pipeline: tuple[AnyStep, ...]
    test_mode: Annotated[Any, NoEffect("the split says what the data are for")] = False
    multi_class: bool = False
    num_classes: PositiveInt | None = None
    start_index: NonNegativeInt | None = None
    modality: Literal["RGB"] = "RGB"
    sample_by_class: bool = False
    power: Fraction = 0.0
    balance: Literal["class", "sqrt"] | None = None
    """Our own word for `sample_by_class=True` with `power` 0 and 0.5."""
    repeats: PositiveInt = 1
    """Our own word: clips of the same video in a batch."""
    scaling: Literal["exact", "crop_first", "swscale"] = "exact"
    """Our own word: what may be done to spare work, where frames are resized."""
    dynamic_length: Literal[False] = False

    def contradictions(self, path: KeyPath) -> Iterator[Problem]:
        """Keys that cannot both be meant, and pipelines that make no clips."""
        samplers = [step for step in self.pipeline if step.sampling()]
        if len(samplers) != 1:
            yield Problem((*path, "pipeline"), f"needs one step that samples frames, and has {len(samplers)}")
        has_frames = isinstance(self, RawframeDataset)
        if has_frames != any(isinstance(step, RawFrameDecode) for step in self.pipeline):
            right = "RawFrameDecode" if has_frames else "DecordInit and DecordDecode"
            yield Problem((*path, "pipeline"), f"a {type(self).__name__} is decoded by {right}")
        yield from self._odd_balance(path)
        if self.ann_file is None and self.data_prefix is None:
            yield Problem((*path, "ann_file"), "is missing, and there is no data_prefix with class folders either")
        normalized = False
        for place, step in enumerate(self.pipeline):
            normalized |= isinstance(step, Normalize)
            if step.on_pixels and normalized:
                yield Problem((*path, "pipeline", place), f"{type(step).__name__} must stand before Normalize")
            if isinstance(step, RandomErasing) and not normalized:
                yield Problem((*path, "pipeline", place), "RandomErasing must stand after Normalize")

    def _odd_balance(self, path: KeyPath) -> Iterator[Problem]:
        given = {"sample_by_class": self.sample_by_class, "balance": self.balance, "repeats": self.repeats > 1}
        if path[-1] != "train":
            yield from (
                Problem((*path, key), "is for training; here every video counts once") for key in given if given[key]
            )
        if self.sample_by_class and self.balance:
            yield Problem((*path, "balance"), "says the same as sample_by_class and power; choose one of them")
        if self.power and not self.sample_by_class:
            yield Problem((*path, "power"), "means nothing without sample_by_class=True")
        if self.multi_class and self.class_power is not None:
            yield Problem((*path, "multi_class"), "cannot be balanced by class: a video is of several classes")

    @property
    def class_power(self) -> float | None:
        """The power of its size that a class weighs; None where videos are not drawn by class."""
        return (
            {"class": 0.0, "sqrt": 0.5}[self.balance] if self.balance else self.power if self.sample_by_class else None
        )

    @property
    def has_fixed_clips(self) -> bool:
        """Whether every reading gives the same clips."""
        return all(sampling.test_mode for step in self.pipeline if (sampling := step.sampling()))

    def settings(self, *, batch_size: int, num_workers: int) -> schema.SplitSettings:
        """The split in our words."""
        unchanged = schema.NormalizeSettings(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        return schema.SplitSettings(
            ann_file=self.ann_file,
            root=self.data_prefix or "",
            frames=isinstance(self, RawframeDataset),
            start_index=self.start_index,
            multi_class=self.multi_class,
            num_classes=self.num_classes,
            sampling=next(sampling for step in self.pipeline if (sampling := step.sampling())),
            transforms=tuple(operation for step in self.pipeline for operation in step.operations()),
            normalize=next((norm for step in self.pipeline if (norm := step.normalize())), unchanged),
            batch_size=batch_size,
            num_workers=num_workers,
            class_power=self.class_power,
            repeats=self.repeats,
            scaling=self.scaling,
        )


class VideoDataset(Dataset):
    """Video files."""

    type: Literal["VideoDataset"]
    decoder: Literal["auto", "pyav", "torchcodec"] = "pyav"
    """Our own word: what decodes the files, whichever of upstream's steps stands in the pipeline."""

    def contradictions(self, path: KeyPath) -> Iterator[Problem]:
        """Keys that cannot both be meant, and pipelines that make no clips."""
        yield from super().contradictions(path)
        if self.scaling == "swscale" and self.decoder == "torchcodec":
            yield Problem((*path, "scaling"), "'swscale' is for decoder='pyav'")

    def settings(self, *, batch_size: int, num_workers: int) -> schema.SplitSettings:
        """The split in our words."""
        split = super().settings(batch_size=batch_size, num_workers=num_workers)
        return split.model_copy(update={"decoder": self.decoder})


class RawframeDataset(Dataset):
    """Folders of extracted frames."""

    type: Literal["RawframeDataset"]
    filename_tmpl: str = "img_{:05}.jpg"
    with_offset: bool = False

    def contradictions(self, path: KeyPath) -> Iterator[Problem]:
        """Keys that cannot both be meant, and pipelines that make no clips."""
        yield from super().contradictions(path)
        if self.ann_file is None:
            yield Problem((*path, "ann_file"), "is missing: folders of frames are named by a list")
        if self.scaling == "swscale":
            yield Problem((*path, "scaling"), "'swscale' is for video files")
        try:
            differ = self.filename_tmpl.format(1) != self.filename_tmpl.format(2)
        except (IndexError, KeyError, ValueError):
            differ = False
        if not differ:
            yield Problem((*path, "filename_tmpl"), "needs one place for the frame's number, as in img_{:05}.jpg")

    def settings(self, *, batch_size: int, num_workers: int) -> schema.SplitSettings:
        """The split in our words."""
        split = super().settings(batch_size=batch_size, num_workers=num_workers)
        return split.model_copy(update={"filename_template": self.filename_tmpl, "with_offset": self.with_offset})


AnyDataset = Annotated[VideoDataset | RawframeDataset, Field(discriminator="type")]

_LOADER_DECIDES = NoEffect("our loader decides")


class Loader(Words):
    """`data.train_dataloader` and its like: what differs from the numbers for all splits."""

    videos_per_gpu: PositiveInt | None = None
    workers_per_gpu: NonNegativeInt | None = None
    shuffle: Annotated[Any, _LOADER_DECIDES] = None
    drop_last: Annotated[Any, _LOADER_DECIDES] = None
    pin_memory: Annotated[Any, _LOADER_DECIDES] = None
    persistent_workers: Annotated[Any, _LOADER_DECIDES] = None
    prefetch_factor: Annotated[Any, _LOADER_DECIDES] = None


class BadVideos(Words, schema.BadVideoSettings):
    """`data.bad_videos`, our own word."""


class Data(Words):
    """`data`: the splits and how they are loaded."""

    videos_per_gpu: PositiveInt = 1
    workers_per_gpu: NonNegativeInt = 1
    train: AnyDataset | None = None
    val: AnyDataset | None = None
    test: AnyDataset | None = None
    train_dataloader: Loader = Loader()
    val_dataloader: Loader = Loader()
    test_dataloader: Loader = Loader()
    bad_videos: BadVideos = BadVideos()

    def contradictions(self) -> Iterator[Problem]:
        """Keys that cannot both be meant."""
        for name in SPLITS:
            if dataset := self.dataset(name):
                yield from dataset.contradictions(("data", name))

    def dataset(self, name: SplitName) -> VideoDataset | RawframeDataset | None:
        """A split's dataset."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def loader(self, name: SplitName) -> Loader:
        """What a split's loader has of its own."""
        return {"train": self.train_dataloader, "val": self.val_dataloader, "test": self.test_dataloader}[name]

    def settings(self, *, train_batch: int) -> schema.DataSettings:
        """The splits in our words.

        Args:
            train_batch: videos per device and optimiser step.
        """
        splits = {}
        for name in SPLITS:
            if dataset := self.dataset(name):
                own = self.loader(name)
                batch = train_batch if name == "train" else own.videos_per_gpu or self.videos_per_gpu
                workers = self.workers_per_gpu if own.workers_per_gpu is None else own.workers_per_gpu
                splits[name] = dataset.settings(batch_size=batch, num_workers=workers)
        bad_videos = schema.BadVideoSettings.model_validate(self.bad_videos.model_dump())
        return schema.DataSettings(**splits, bad_videos=bad_videos)
