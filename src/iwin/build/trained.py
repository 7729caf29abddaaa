"""Checkpoints: what they carry, and trained models from them."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from iwin.build.models import build_model
from iwin.checkpoint.convert import load_weights
from iwin.checkpoint.io import Weights
from iwin.checkpoint.source import open_weights, shown
from iwin.config import load_run_config, schema
from iwin.errors import CheckpointError, ConfigError
from iwin.models.recognizer import IwinRecognizer


def checkpoint_metadata(
    config: schema.RunConfig,
    *,
    config_text: str,
    classes: Sequence[str] | None,
    fingerprints: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """What every checkpoint carries beside its tensors: enough to predict, test and train on from it alone."""
    return {
        "format": "iwin",
        "config": config.model_dump_json(),
        "config_file": config_text,
        "classes": json.dumps(classes),
        "fingerprints": json.dumps(dict(fingerprints or {})),
    }


@dataclass(frozen=True)
class Trained:
    """A trained model and what belongs to it.

    Attributes:
        model: the recogniser, in evaluation mode.
        config: the run that made it.
        classes: class names by label, or None where they are not known.
        fingerprints: of the data that it was trained ("train") and validated ("val") on, where they are known.
    """

    model: IwinRecognizer
    config: schema.RunConfig
    classes: tuple[str, ...] | None
    fingerprints: Mapping[str, str] = field(default_factory=dict)


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
    fingerprints = json.loads(weights.metadata.get("fingerprints", "{}"))
    return Trained(model.eval(), config, tuple(names) if names else None, fingerprints)


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
