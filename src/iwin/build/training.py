"""Everything that a training run works with."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from iwin.build.data import build_annotations, build_normalize, decoder_notes, training_loader
from iwin.build.evaluation import build_evaluation
from iwin.build.models import build_model, compile_model
from iwin.build.trained import checkpoint_metadata
from iwin.checkpoint.convert import LoadReport, load_weights
from iwin.config import schema
from iwin.data.fingerprint import fingerprint
from iwin.engine.advice import Advice
from iwin.engine.bad_files import BAD_FILES_NAME, BadFiles, read_bad_files
from iwin.engine.log import RunLog
from iwin.engine.loss import binary_cross_entropy, cross_entropy
from iwin.engine.optim import ParamRule, build_optimizer, parameter_groups
from iwin.engine.schedule import Schedule
from iwin.engine.state import WorkDir
from iwin.engine.train import Training
from iwin.errors import ConfigError, first_of
from iwin.models.recognizer import IwinRecognizer
from iwin.transforms.mix import Blend


def build_training(
    config: schema.RunConfig,
    *,
    accelerator: Accelerator,
    log: RunLog,
    work_dir: Path,
    config_text: str,
    compiled: bool = False,
) -> Training:
    """Everything that a training run works with, its model started from the weights that the config names."""
    if config.data.train is None:
        raise ConfigError("data.train is missing: training needs a training split")
    annotations = build_annotations(config.data.train, name="train")
    num_classes = config.model.num_classes or annotations.count_classes()
    annotations.check_labels(num_classes)
    check_label_maps(config.data.train, num_classes)
    if num_classes != annotations.num_classes:
        log.warn(
            f"the model has {num_classes} classes, the data {annotations.num_classes}; "
            "set model.cls_head.num_classes=None to take the data's"
        )
    elif annotations.classes is None and (unused := annotations.unused_labels()):
        log.warn(
            f"{annotations.source}: {len(unused)} of the {num_classes} classes that its labels count have no video "
            f"({first_of(unused)}); labels should count from 0 without gaps"
        )
    model = build_model(config.model, num_classes=num_classes)
    start_from_weights(config, model, log)
    model.to(accelerator.device)
    if compiled:
        compile_model(model, device=accelerator.device, log=log)
    optimizer = _build_optimizer(config.optim, model)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    loader, batches = training_loader(config, annotations, accelerator, num_classes=num_classes)
    bad_files = build_bad_files(config, accelerator=accelerator, log=log, work_dir=work_dir)
    loader.bad.learn(bad_files.known_among([sample.path for sample in annotations.samples]))
    if config.blending is not None and batches.batch_size == 1:
        log.warn(
            "mixing videos (train_cfg.blending) has no effect: one goes through the model at a time; raise "
            "data.videos_per_gpu or lower the accumulation (optimizer_config.update_interval)"
        )
    for note in decoder_notes(config.data.train, config.data.val):
        log.say(note)
    validation = None
    if config.data.val is not None:
        val = build_annotations(config.data.val, name="val", classes=annotations.classes)
        val.check_labels(num_classes)
        validation = build_evaluation(config, config.data.val, val, accelerator, name="val", num_classes=num_classes)
        validation.loader.bad.learn(bad_files.known_among([sample.path for sample in val.samples]))
    fingerprints = {}
    if accelerator.is_main_process:  # which alone writes checkpoints
        fingerprints["train"] = fingerprint(annotations, decoder=loader.dataset.reader.decoder)
        if validation is not None:
            decoder = validation.loader.dataset.reader.decoder
            fingerprints["val"] = fingerprint(validation.annotations, decoder=decoder)
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
        bad_files=bad_files,
        advice=Advice(loader.num_workers, int(os.environ.get("LOCAL_WORLD_SIZE", "1")), available_cores()),
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
        metadata=checkpoint_metadata(
            config,
            config_text=config_text,
            classes=annotations.classes,
            fingerprints=fingerprints,
        ),
    )


def build_bad_files(config: schema.RunConfig, *, accelerator: Accelerator, log: RunLog, work_dir: Path) -> BadFiles:
    """Where a training run names its bad videos: anew, or after those that the run it continues has named."""
    path = work_dir / BAD_FILES_NAME
    if config.resume_from is None:
        known = [file for file in read_bad_files(path) if file.split == "test"]
    else:
        folder = Path(config.resume_from)
        known = [*read_bad_files(folder / BAD_FILES_NAME), *read_bad_files(folder.parent / BAD_FILES_NAME)]
    accelerator.wait_for_everyone()  # all have read the file that the first one writes anew
    return BadFiles(path if accelerator.is_main_process else None, log, known=known)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    """Refuse flips that make classes which the model does not have, or of videos with several."""
    for step in split.transforms:
        if isinstance(step, schema.Flip) and step.label_map and split.multi_class:
            raise ConfigError("flip_label_map is for one label a video, but data.train has several (multi_class=True)")
        if isinstance(step, schema.Flip) and step.label_map and max(map(max, step.label_map)) >= num_classes:
            raise ConfigError(
                f"flip_label_map names class {max(map(max, step.label_map))}; the classes are 0 .. {num_classes - 1}"
            )


def build_criterion(config: schema.RunConfig, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean loss of logits (N, K) and labels (N,) or class probabilities (N, K)."""
    settings = config.model
    weights = None if settings.class_weights is None else torch.tensor(settings.class_weights, device=device)
    function = {"cross_entropy": cross_entropy, "binary_cross_entropy": binary_cross_entropy}[settings.loss]
    loss = partial(function, class_weights=weights, smoothing=settings.label_smoothing)
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
