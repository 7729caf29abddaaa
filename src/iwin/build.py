"""From settings to objects: the only room that knows both."""

import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.tracking import get_available_trackers
from pydantic import ValidationError
from torch import Tensor

from iwin.checkpoint.convert import LoadReport, load_weights
from iwin.checkpoint.io import Weights
from iwin.checkpoint.source import open_weights, shown
from iwin.config import load_run_config, schema
from iwin.data.annotations import Annotations, read_class_folders, read_list
from iwin.data.datasets import VideoDataset
from iwin.data.loader import BatchLoader, EpochBatches, ShardBatches, make_loader
from iwin.data.sampling import FrameSampler
from iwin.engine.evaluate import Evaluation
from iwin.engine.log import RunLog
from iwin.engine.loss import cross_entropy
from iwin.engine.optim import ParamRule, build_optimizer, parameter_groups
from iwin.engine.schedule import Schedule
from iwin.engine.state import WorkDir
from iwin.engine.train import Training
from iwin.errors import CheckpointError, ConfigError, DataError
from iwin.models.iwin import IwinTransformer
from iwin.models.recognizer import IwinImageClassifier, IwinRecognizer
from iwin.models.zoo import build_named
from iwin.transforms import augment, colour, geometry
from iwin.transforms.mix import Blend
from iwin.transforms.normalize import normalize

# ---------------------------------------------------------------------------------------------- models


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    pretrained: str | Path | None = None,
    num_frames: int | None = None,
    **settings: Any,
) -> IwinRecognizer | IwinImageClassifier:
    """A model by name, with fresh or given weights.

    Args:
        name: one of `iwin.list_models()`.
        num_classes: classes; None means 400 (Kinetics) for a video model, 1000 (ImageNet) for an image model.
        pretrained: checkpoint to start from: a recogniser's, a backbone's, or an image model's, which is inflated. A
            path, an address, a Hub id, or the name of the authors' weights for this size: "kinetics400",
            "imagenet1k", "imagenet22k". A classifier of another number of classes keeps its fresh weights.
        num_frames: clip length that the time embedding is sized for; None means 32. Any clip length runs. Image
            models have none.
        **settings: anything else that `IwinTransformer` takes (drop_path_rate, use_checkpoint, window_size, …), and
            `dropout` before a video model's classifier.

    Raises:
        ModelError: if there is no such model or setting.
        CheckpointError: if the checkpoint does not fit.
    """
    if num_frames is not None:
        settings["num_frames"] = num_frames
    model = build_named(name, num_classes=num_classes, **settings)
    if pretrained is not None:
        report = load_weights(model, pretrained)
        if report.warnings:
            warnings.warn(str(report), stacklevel=2)
    return model


def build_model(settings: schema.ModelSettings, *, num_classes: int) -> IwinRecognizer:
    """The recogniser of a run, with fresh weights."""
    backbone = IwinTransformer(**settings.backbone.model_dump(), num_frames=settings.num_frames)
    return IwinRecognizer(backbone, num_classes=num_classes, dropout=settings.dropout, init_std=settings.init_std)


# ---------------------------------------------------------------------------------------------- data


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


def build_evaluation(
    config: schema.RunConfig, split: schema.SplitSettings, annotations: Annotations, accelerator: Accelerator
) -> Evaluation:
    """The evaluation of a split, its videos shared out over the processes."""
    if "mean_average_precision" in config.evaluation.metrics and not split.multi_class:
        raise ConfigError("mean_average_precision is for lists with several labels a video, which this split is not")
    if any(isinstance(step, schema.Flip) and step.label_map for step in split.transforms):
        raise ConfigError("a Flip that changes labels (flip_label_map) is for training; leave it out of val and test")
    dataset = VideoDataset(annotations.samples, sampler=build_sampler(split.sampling), transform=build_transform(split))
    batches = ShardBatches(
        len(dataset),
        batch_size=split.batch_size,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    return Evaluation(
        loader=make_loader(
            dataset, batches, num_workers=split.num_workers, pin_memory=accelerator.device.type == "cuda"
        ),
        annotations=annotations,
        normalize=build_normalize(split.normalize),
        average=config.test.average_clips,
        max_views=config.test.max_testing_views,
        metrics=config.evaluation.metrics,
        topk=config.evaluation.topk,
    )


# ---------------------------------------------------------------------------------------------- training


def build_accelerator(
    config: schema.RunConfig, *, precision: str | None = None, cpu: bool = False, track_in: Path | None = None
) -> Accelerator:
    """Devices, processes and precision.

    Args:
        config: the run; its `optim.mixed_precision` asks for bf16 (fp16 where a GPU has no bf16). A CPU keeps full
            precision unless `precision` says otherwise: few are faster in bf16.
        precision: "bf16", "fp16" or "no"; overrules the config.
        cpu: stay on the CPU even where there is a GPU.
        track_in: folder for the files of the config's experiment trackers; None runs without trackers.

    Raises:
        ConfigError: if a tracker is not installed.
    """
    trackers = list(config.trackers) if track_in is not None else []
    missing = set(trackers) - {tracker.value for tracker in get_available_trackers()}
    if missing:
        raise ConfigError(
            f"log_config.hooks: the tracker {min(missing)} is not installed; `pip install {min(missing)}`, or leave "
            "its hook out"
        )
    if precision is None:
        precision = "no"
        if config.optim.mixed_precision and torch.cuda.is_available() and not cpu:
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and (
        torch.backends.mps.is_available() or not torch.accelerator.is_available()
    ):
        cpu = True  # Accelerate would let each of several processes run alone where none has a GPU of its own
    ddp = DistributedDataParallelKwargs(find_unused_parameters=config.find_unused_parameters)
    accelerator = Accelerator(
        mixed_precision=precision, cpu=cpu, kwargs_handlers=[ddp], log_with=trackers or None, project_dir=track_in
    )
    if track_in is not None and trackers:
        accelerator.init_trackers(track_in.name)
    return accelerator


def build_training(
    config: schema.RunConfig, *, accelerator: Accelerator, log: RunLog, work_dir: Path, config_text: str
) -> Training:
    """Everything that a training run works with, its model started from the weights that the config names."""
    if config.data.train is None:
        raise ConfigError("data.train is missing: training needs a training split")
    annotations = build_annotations(config.data.train, name="train")
    num_classes = config.model.num_classes or annotations.num_classes
    annotations.check_labels(num_classes)
    check_label_maps(config.data.train, num_classes)
    if num_classes != annotations.num_classes:
        log.warn(
            f"the model has {num_classes} classes, the data {annotations.num_classes}; "
            "leave model.cls_head.num_classes out to take the data's"
        )
    model = build_model(config.model, num_classes=num_classes)
    start_from_weights(config, model, log)
    model.to(accelerator.device)
    optimizer = _build_optimizer(config.optim, model)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    loader, batches = training_loader(config, annotations, accelerator)
    if config.blending is not None and batches.batch_size == 1:
        log.warn(
            "mixing videos (train_cfg.blending) has no effect: one goes through the model at a time; raise "
            "data.videos_per_gpu or lower the accumulation (optimizer_config.update_interval)"
        )
    validation = None
    if config.data.val is not None:
        val = build_annotations(config.data.val, name="val", classes=annotations.classes)
        val.check_labels(num_classes)
        validation = build_evaluation(config, config.data.val, val, accelerator)
    return Training(
        accelerator=accelerator,
        model=prepared,
        optimizer=optimizer,
        schedule=Schedule(**config.schedule.model_dump()),
        annotations=annotations,
        loader=loader,
        batches=batches,
        normalize=build_normalize(config.data.train.normalize),
        work_dir=WorkDir(work_dir, keep=config.keep_checkpoints),
        log=log,
        epochs=config.epochs,
        accumulation=config.optim.accumulation,
        criterion=build_criterion(config, accelerator.device),
        blend=build_blend(config, num_classes=num_classes, rank=accelerator.process_index),
        grad_clip=config.optim.grad_clip,
        validation=validation,
        validation_interval=config.evaluation.interval,
        best_score=best_score(config.evaluation),
        checkpoint_interval=config.checkpoint_interval,
        log_interval=config.log_interval,
        metadata=checkpoint_metadata(config, config_text=config_text, classes=annotations.classes),
    )


def start_from_weights(config: schema.RunConfig, model: IwinRecognizer, log: RunLog) -> LoadReport | None:
    """Fill a fresh model from `load_from` or `pretrained`, saying what came from where."""
    source = config.load_from or config.model.pretrained
    if source is not None:
        report = load_weights(model, source)
        tell = log.warn if report.warnings else log.say
        tell(str(report))
        said = config.model.pretrained_image
        if config.load_from is None and said != (report.layout == "image"):
            log.say(f"model.backbone.pretrained2d={said} has no effect: the tensors tell what a checkpoint is")
        return report
    slow = [rule for rule in config.optim.rules if rule.key == "backbone" and rule.lr_mult < 1]
    if slow and config.resume_from is None:
        log.warn(
            f"this recipe trains the backbone at {slow[0].lr_mult:g} of the learning rate, which is meant for a "
            "pretrained one, but no weights are given: set model.backbone.pretrained=<PRETRAIN_MODEL>, a file, "
            "an address, or imagenet1k for the authors' image weights. From fresh weights it ends far below the "
            "published accuracy."
        )
    return None


def check_label_maps(split: schema.SplitSettings, num_classes: int) -> None:
    """Refuse flips that make classes which the model does not have."""
    for step in split.transforms:
        if isinstance(step, schema.Flip) and step.label_map and max(map(max, step.label_map)) >= num_classes:
            raise ConfigError(
                f"flip_label_map names class {max(map(max, step.label_map))}; the classes are 0 .. {num_classes - 1}"
            )


def build_criterion(config: schema.RunConfig, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean loss of logits (N, K) and labels (N,) or class probabilities (N, K)."""
    settings = config.model
    if settings.loss != "cross_entropy":
        raise ConfigError("the binary cross entropy is not supported yet; leave it out to train with cross entropy")
    weights = None if settings.class_weights is None else torch.tensor(settings.class_weights, device=device)
    loss = partial(cross_entropy, class_weights=weights, smoothing=settings.label_smoothing)
    return lambda logits, targets: settings.loss_weight * loss(logits, targets)


def build_blend(config: schema.RunConfig, *, num_classes: int, rank: int) -> Blend | None:
    """How the clips of a training batch are mixed; None where they are not."""
    if config.blending is None:
        return None
    return Blend(**config.blending.model_dump(), num_classes=num_classes, seed=config.seed, rank=rank)


def _build_optimizer(settings: schema.OptimSettings, model: IwinRecognizer) -> torch.optim.Optimizer:
    groups = parameter_groups(
        model,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        rules=[ParamRule(**rule.model_dump()) for rule in settings.rules],
        norm_decay_mult=settings.norm_decay_mult,
        bias_lr_mult=settings.bias_lr_mult,
        bias_decay_mult=settings.bias_decay_mult,
    )
    return build_optimizer(
        groups,
        name=settings.name,
        betas=settings.betas,
        eps=settings.eps,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
    )


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


def best_score(settings: schema.EvaluationSettings) -> str | None:
    """The figure that decides which checkpoint is best."""
    figures = [
        figure
        for metric in settings.metrics
        for figure in ([f"top{k}_acc" for k in settings.topk] if metric == "top_k_accuracy" else [metric])
    ]
    if settings.save_best == "auto":
        return figures[0]
    if settings.save_best not in (None, *figures):
        raise ConfigError(f"evaluation.save_best={settings.save_best}: the figures are {', '.join(figures)}")
    return settings.save_best


# ---------------------------------------------------------------------------------------------- checkpoints


def checkpoint_metadata(config: schema.RunConfig, *, config_text: str, classes: Sequence[str] | None) -> dict[str, str]:
    """What every checkpoint carries beside its tensors: enough to predict, test and train on from it alone."""
    return {
        "format": "iwin",
        "config": config.model_dump_json(),
        "config_file": config_text,
        "classes": json.dumps(classes),
    }


@dataclass(frozen=True)
class Trained:
    """A trained model and what belongs to it.

    Attributes:
        model: the recogniser, in evaluation mode.
        config: the run that made it.
        classes: class names by label, or None where they are not known.
    """

    model: IwinRecognizer
    config: schema.RunConfig
    classes: tuple[str, ...] | None


def load_trained(checkpoint: str | Path | Weights, *, config: schema.RunConfig | None = None) -> Trained:
    """A trained model from its checkpoint.

    Args:
        checkpoint: a path, an address, a Hub id, or weights that were read before.
        config: the run that made it; needed for a checkpoint that does not carry it.

    Raises:
        CheckpointError: if the checkpoint cannot be had or read, or does not fit the config.
    """
    weights = checkpoint if isinstance(checkpoint, Weights) else open_weights(checkpoint)
    name = shown(weights.path if isinstance(checkpoint, Weights) else checkpoint)
    if config is None:
        stated = stated_config(weights)
        if stated is None:
            raise CheckpointError(f"{name}: carries no config; name the config that it was trained with")
        config = stated[0]
    classifier = weights.state.get("cls_head.fc_cls.weight")
    if classifier is None:
        raise CheckpointError(f"{name}: holds no recogniser: it has no 'cls_head.fc_cls.weight'")
    if config.model.num_classes not in (None, len(classifier)):
        raise CheckpointError(
            f"{name}: has {len(classifier)} classes, the config {config.model.num_classes}; "
            f"set model.cls_head.num_classes={len(classifier)}"
        )
    model = build_model(config.model, num_classes=len(classifier))
    load_weights(model, weights, whole=True)
    names = json.loads(weights.metadata.get("classes", "null"))
    return Trained(model.eval(), config, tuple(names) if names else None)


def stated_config(weights: Weights) -> tuple[schema.RunConfig, str] | None:
    """The run that a checkpoint says it comes from, and the text of its config file; None where it says nothing.

    Ours carry the run itself, those of mmcv the text of the config file.

    Raises:
        CheckpointError: if what it says cannot be used.
    """
    if "config" in weights.metadata:
        try:
            run = schema.RunConfig.model_validate_json(weights.metadata["config"])
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"]))
            raise CheckpointError(
                f"{weights.path}: the config in it is not understood ({place}: {problem['msg']}); "
                "name the config that it was trained with"
            ) from None
        return run, weights.metadata.get("config_file", "")
    meta = weights.others.get("meta")
    text = meta.get("config") if isinstance(meta, Mapping) else None
    if not isinstance(text, str):
        return None
    text = re.sub(r"^gpu_ids = range\(.*\)$", "", text, flags=re.MULTILINE)  # the one value in it that is no literal
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.py"
        file.write_text(text, encoding="utf-8", errors="replace")
        try:
            return load_run_config(file)[0], text
        except ConfigError as error:
            raise CheckpointError(
                f"{weights.path}: the config in it is not understood; name the config that it was trained with "
                f"({error})"
            ) from None


def build_test(config: schema.RunConfig, *, classes: Sequence[str] | None, accelerator: Accelerator) -> Evaluation:
    """The multi-view test of a run's test split."""
    if config.data.test is None:
        raise ConfigError("data.test is missing: testing needs a test split")
    annotations = build_annotations(config.data.test, name="test", classes=classes)
    return build_evaluation(config, config.data.test, annotations, accelerator)
