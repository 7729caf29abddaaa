"""Splits: their samples, the way from a video to a clip, their batches."""

from collections.abc import Callable, Sequence
from functools import partial

from accelerate import Accelerator
from torch import Tensor

from iwin.config import schema
from iwin.data.annotations import Annotations, read_class_folders, read_list
from iwin.data.datasets import VideoDataset
from iwin.data.loader import BatchLoader, EpochBatches, make_loader
from iwin.data.sampling import FrameSampler
from iwin.errors import ConfigError, DataError
from iwin.transforms import augment, colour, geometry
from iwin.transforms.normalize import normalize


def build_annotations(split: schema.SplitSettings, *, name: str, classes: Sequence[str] | None = None) -> Annotations:
    """The samples of a split; `classes` are the known class names, for class folders."""
    if split.frames:
        raise ConfigError(f"data.{name}: folders of extracted frames are not supported yet; use type='VideoDataset'")
    if split.multi_class:
        raise ConfigError(f"data.{name}: several labels a video (multi_class) are not supported yet")
    if split.start_index:
        raise ConfigError(
            f"data.{name}.start_index={split.start_index}: the frames of a video file count from 0; leave it out"
        )
    if split.ann_file is not None:
        annotations = read_list(split.ann_file, root=split.root)
        if classes and annotations.classes and tuple(classes) != annotations.classes:
            raise DataError(
                f"data.{name}: the class names beside {split.ann_file} are not the model's; its labels would mean "
                "other classes"
            )
        return annotations
    return read_class_folders(split.root, classes=classes)


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


def build_normalize(settings: schema.NormalizeSettings) -> Callable[[Tensor], Tensor]:
    """The step from uint8 clips (B, T, H, W, 3) to normalised ones (B, 3, T, H, W)."""
    return partial(normalize, mean=settings.mean, std=settings.std, bgr=settings.bgr)


def training_loader(
    config: schema.RunConfig, annotations: Annotations, accelerator: Accelerator
) -> tuple[BatchLoader, EpochBatches]:
    """This process's batches of the training split, and their order."""
    split = config.data.train
    assert split is not None
    dataset = VideoDataset(
        annotations.samples,
        sampler=build_sampler(split.sampling),
        transform=build_transform(split),
        seed=config.seed,
        replace_bad=True,
    )
    batches = EpochBatches(
        len(dataset),
        batch_size=max(1, split.batch_size // config.optim.accumulation),
        seed=config.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    loader = make_loader(dataset, batches, num_workers=split.num_workers, pin_memory=accelerator.device.type == "cuda")
    return loader, batches
