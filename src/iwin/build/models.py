"""Models, fresh or started from weights."""

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from iwin.checkpoint.convert import load_weights
from iwin.config import schema
from iwin.engine.log import RunLog
from iwin.errors import ConfigError
from iwin.models.iwin import IwinTransformer
from iwin.models.kernels.ops import can_compile
from iwin.models.recognizer import IwinImageClassifier, IwinRecognizer
from iwin.models.zoo import build_named


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


def compile_model(model: IwinRecognizer, *, device: torch.device, log: RunLog) -> None:
    """Have `torch.compile` join a model's operators in its first passes; its weights and their names stay as they are.

    Each shape of clips has a graph of its own, up to PyTorch's limit (`torch._dynamo.config.recompile_limit`, 8), after
    which the model runs as it was. On a CPU it gains nothing, and the log says so.

    Raises:
        ConfigError: if there is no compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None or not can_compile():
        raise ConfigError(
            f"--compile needs the compilers gcc and {compiler} and Python's headers (on Debian and Ubuntu: "
            "apt-get install g++ python3-dev); install them, or leave it out"
        )
    if device.type == "cpu":
        log.say("note: --compile gains nothing on a CPU, where the model has kernels of its own")
    model.compile(dynamic=False)


def build_model(settings: schema.ModelSettings, *, num_classes: int) -> IwinRecognizer:
    """The recogniser of a run, with fresh weights."""
    backbone = IwinTransformer(**settings.backbone.model_dump(), num_frames=settings.num_frames)
    return IwinRecognizer(backbone, num_classes=num_classes, dropout=settings.dropout, init_std=settings.init_std)
