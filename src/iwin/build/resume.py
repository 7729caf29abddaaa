"""What may differ between a run and the saved one that it goes on from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iwin.config import config_key, schema
from iwin.errors import CheckpointError

FIXED = (
    "model.backbone",
    "optim.name",
    "optim.rules",
    "optim.norm_decay_mult",
    "optim.bias_lr_mult",
    "optim.bias_decay_mult",
    "data.train.class_power",
    "data.train.repeats",
)
"""Settings that the saved tensors belong to, or that decide which videos come next."""

FREE = (
    "model.backbone.drop_rate",
    "model.backbone.attn_drop_rate",
    "model.backbone.drop_path_rate",
    "model.backbone.use_checkpoint",
)
"""Those among them that may change all the same."""

SILENT = (
    "model.backbone.use_checkpoint",
    "model.num_classes",
    "model.pretrained",
    "model.pretrained_image",
    "data.train.ann_file",
    "data.train.root",
    "data.train.num_workers",
    "data.train.batch_size",
    "optim.accumulation",
)
"""Settings that change nothing in a run that goes on, or that are compared elsewhere: tensors, fingerprints, layout."""


def compare_settings(saved: Mapping[str, Any], config: schema.RunConfig, *, source: Path) -> str | None:
    """What is to be said about settings that differ from those of the saved run; None where nothing is.

    Args:
        saved: the settings of the run that saved its state (`SavedState.settings`).
        config: the run that goes on from it.
        source: where the state lies, for messages.

    Raises:
        CheckpointError: if one differs with which the state cannot be gone on from.
    """
    before, now = _leaves(saved), _leaves(config.model_dump(mode="json"))
    changed = [name for name in now if name in before and before[name] != now[name]]
    fixed = [name for name in changed if _is_among(name, FIXED) and not _is_among(name, FREE)]
    if fixed:
        told = "; ".join(_told(name, before[name], now[name]) for name in fixed)
        raise CheckpointError(
            f"{source}: this training state cannot be gone on from with other settings: {told}. Set them as they were, "
            "or start a new run from its weights with load_from"
        )
    groups = ("model", "data.train", "optim", "schedule", "blending")
    other = [name for name in changed if _is_among(name, groups) and not _is_among(name, SILENT)]
    if not other:
        return None
    told = "; ".join(_told(name, before[name], now[name]) for name in other)
    return f"settings that differ from those of the run so far, and hold from here on: {told}"


def _leaves(settings: Mapping[str, Any], parent: str = "") -> dict[str, Any]:
    """Settings by dotted names; lists, and groups that can be None, are whole."""
    leaves: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{parent}{key}"
        whole = name == "blending" or not isinstance(value, Mapping)
        leaves |= {name: value} if whole else _leaves(value, f"{name}.")
    return leaves


def _is_among(name: str, groups: tuple[str, ...]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def _told(name: str, before: object, now: object) -> str:
    """A setting as a config file calls it, with its values where they are short."""
    values = f" is {now}, was {before}"
    return config_key(name) + (values if len(values) < 80 else " is another")
