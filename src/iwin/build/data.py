"""Splits: their samples, the way from a video to a clip, their batches."""

from collections.abc import Callable, Sequence
from functools import partial

from accelerate import Accelerator
from torch import Tensor

from iwin.config import schema
from iwin.data.annotations import Annotations, FrameList, composed, split_folder
from iwin.data.bad_videos import BadVideos
from iwin.data.batches import EpochBatches, ShardBatches
from iwin.data.datasets import ClipReader, VideoDataset
from iwin.data.decode import choose_decoder
from iwin.data.layouts import read_annotation_file, read_annotation_folder
from iwin.data.loader import BatchLoader
from iwin.data.sampling import FrameSampler
from iwin.errors import ConfigError, DataError
from iwin.transforms import augment, colour, geometry
from iwin.transforms.normalize import normalize


def build_annotations(split: schema.SplitSettings, *, name: str, classes: Sequence[str] | None = None) -> Annotations:
    """The samples of a split; `classes` are the model's class names, which its labels must mean."""
    if split.start_index and not split.frames:
        raise ConfigError(
            f"data.{name}.start_index={split.start_index}: the frames of a video file count from 0; leave it out"
        )
    annotations = _read_annotations(split, classes)
    if classes and annotations.classes and [*map(composed, classes)] != [*map(composed, annotations.classes)]:
        raise DataError(
            f"data.{name}: the class names of {annotations.source} are not the model's; its labels would mean other "
            "classes"
        )
    if split.num_classes is not None:
        annotations.check_labels(split.num_classes)
    return annotations


def _read_annotations(split: schema.SplitSettings, classes: Sequence[str] | None) -> Annotations:
    if split.ann_file is None:
        return read_annotation_folder(split_folder(split.root), classes=classes, multi_label=split.multi_class)
    start = 1 if split.start_index is None else split.start_index
    frames = FrameList(split.filename_template, start, split.with_offset) if split.frames else None
    return read_annotation_file(
        split.ann_file, root=split.root, frames=frames, classes=classes, multi_label=split.multi_class
    )


TRANSFORMS: dict[type[schema.Settings], Callable[..., geometry.Transform]] = {
    schema.Resize: geometry.Resize,
    schema.RandomResizedCrop: geometry.RandomResizedCrop,
    schema.RandomCrop: geometry.RandomCrop,
    schema.CenterCrop: geometry.CenterCrop,
    schema.ThreeCrop: geometry.ThreeCrop,
    schema.TenCrop: geometry.TenCrop,
    schema.MultiScaleCrop: geometry.MultiScaleCrop,
    schema.Flip: geometry.Flip,
    schema.ColorJitter: colour.ColorJitter,
    schema.RandAugment: augment.RandAugment,
    schema.RandomErasing: augment.RandomErasing,
}


def build_transform(split: schema.SplitSettings) -> geometry.Compose:
    """The steps from decoded frames to the clips of a batch."""
    channels = slice(None, None, -1 if split.normalize.bgr else 1)  # what augments sees RGB, whatever the model sees
    steps = []
    for step in split.transforms:
        settings = step.model_dump(exclude={"kind"})
        if isinstance(step, schema.RandAugment | schema.RandomErasing):
            settings["mean"] = split.normalize.mean[channels]
        if isinstance(step, schema.RandomErasing):
            settings["std"] = split.normalize.std[channels]
        steps.append(TRANSFORMS[type(step)](**settings))
    return geometry.Compose(tuple(steps))


def build_sampler(settings: schema.SamplingSettings) -> FrameSampler:
    """The choice of frames."""
    return FrameSampler(**settings.model_dump())


def build_normalize(settings: schema.NormalizeSettings) -> Callable[..., Tensor]:
    """The step from uint8 clips (B, T, H, W, 3) to normalised ones (B, 3, T, H, W)."""
    return partial(normalize, mean=settings.mean, std=settings.std, bgr=settings.bgr)


def build_reader(split: schema.SplitSettings, *, seed: int = 0) -> ClipReader:
    """The way from a video of a split to its clips."""
    return ClipReader(
        build_sampler(split.sampling),
        build_transform(split),
        seed=seed,
        decoder=choose_decoder(split.decoder)[0],
        scaling=split.scaling,
    )


def build_dataset(
    split: schema.SplitSettings, annotations: Annotations, *, num_classes: int | None, seed: int = 0
) -> VideoDataset:
    """The clips of a split; `num_classes` counts where a video can have several labels."""
    reader = build_reader(split, seed=seed)
    return VideoDataset(annotations.samples, reader, num_classes if split.multi_class else None)


def decoder_notes(*splits: schema.SplitSettings | None) -> list[str]:
    """What is to be said about the decoders of some splits, each line once."""
    notes = [choose_decoder(split.decoder)[1] for split in splits if split is not None]
    return list(dict.fromkeys(note for note in notes if note))


def build_loader(
    config: schema.RunConfig,
    split: schema.SplitSettings,
    dataset: VideoDataset,
    batches: EpochBatches | ShardBatches,
    *,
    accelerator: Accelerator,
) -> BatchLoader:
    """What reads the batches of a split; those of a training epoch keep their size where videos are bad."""
    settings = config.data.bad_videos
    return BatchLoader(
        dataset,
        batches,
        bad=BadVideos(len(dataset), policy=settings.policy, max_share=settings.max_share),
        training=isinstance(batches, EpochBatches),
        num_workers=split.num_workers,
        time_limit=settings.time_limit,
        pin_memory=accelerator.device.type == "cuda",
    )


def training_loader(
    config: schema.RunConfig, annotations: Annotations, accelerator: Accelerator, *, num_classes: int
) -> tuple[BatchLoader, EpochBatches]:
    """This process's batches of the training split, and their order."""
    split = config.data.train
    assert split is not None
    dataset = build_dataset(split, annotations, num_classes=num_classes, seed=config.seed)
    batches = EpochBatches(
        len(dataset),
        batch_size=max(1, split.batch_size // config.optim.accumulation),
        seed=config.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        labels=None if split.class_power is None else [sample.label for sample in annotations.samples],
        power=split.class_power or 0.0,
        repeats=split.repeats,
    )
    return build_loader(config, split, dataset, batches, accelerator=accelerator), batches
