"""What a checkpoint is, told by its tensors' names and shapes and by what it says about itself."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from iwin.checkpoint.io import Weights
from iwin.errors import CheckpointError
from iwin.models.block import IwinBlock
from iwin.models.iwin import IwinStage, IwinTransformer

Layout = Literal["recognizer", "backbone", "image"]

LAYOUT_NAMES: dict[Layout, str] = {
    "recognizer": "a recogniser",
    "backbone": "a video backbone",
    "image": "an image model",
}
PROJECTION = "patch_embed.proj.weight"
HEADS = ("cls_head.", "head.")
"""How the names of a classifier begin: a recogniser's, an image model's."""


@dataclass(frozen=True)
class Description:
    """What shapes tell about a model; window size and attention heads they do not.

    Attributes:
        layout: a whole recogniser, a bare video backbone, or an image model.
        embed_dim: channels of the first stage.
        depths: blocks in each stage.
        patch_size: patch (time, height, width), without time for an image model.
        num_classes: classes, None without a classifier.
        num_frames: clip length that `time_embed` is sized for, None without one.
    """

    layout: Layout
    embed_dim: int
    depths: tuple[int, ...]
    patch_size: tuple[int, ...]
    num_classes: int | None
    num_frames: int | None

    def __str__(self) -> str:
        patch = "x".join(map(str, self.patch_size))
        return f"{LAYOUT_NAMES[self.layout]} of embed_dim {self.embed_dim}, depths {listed(self.depths)}, patch {patch}"


def listed(numbers: tuple[int, ...]) -> str:
    """Numbers as messages give them: "2, 2, 6, 2"."""
    return ", ".join(map(str, numbers))


def detect_layout(state: Mapping[str, Tensor], path: Path) -> Layout:
    """What a state dict holds, told by its names and the patch projection's shape.

    Raises:
        CheckpointError: if it is no Iwin model's.
    """
    if any(name.endswith("relative_position_bias_table") for name in state):
        # Most of its names and shapes are Iwin's too, so it would pass for one of which a little is missing.
        raise CheckpointError(f"{path}: is a Swin Transformer's checkpoint, not an Iwin Transformer's")
    if f"backbone.{PROJECTION}" in state:
        return "recognizer"
    if PROJECTION in state:
        return "backbone" if state[PROJECTION].ndim == 5 else "image"
    names = ", ".join(list(state)[:3])
    raise CheckpointError(f"{path}: is not an Iwin checkpoint: it has no {PROJECTION!r} but names such as {names}")


def describe(state: Mapping[str, Tensor], path: Path) -> Description:
    """Describe a state dict.

    Args:
        state: tensors by name.
        path: where they come from, for messages.

    Raises:
        CheckpointError: if it is no Iwin model's.
    """
    layout = detect_layout(state, path)
    prefix = "backbone." if layout == "recognizer" else ""
    projection = state[prefix + PROJECTION]
    parts = [name.removeprefix(prefix).split(".") for name in state]
    blocks = {(part[1], part[3]) for part in parts if part[0] == "layers" and len(part) > 4 and part[2] == "blocks"}
    depths = Counter(int(stage) for stage, _ in blocks)
    classifier = state.get("cls_head.fc_cls.weight" if layout == "recognizer" else "head.weight")
    time_embed = state.get(f"{prefix}time_embed")
    return Description(
        layout=layout,
        embed_dim=projection.shape[0],
        depths=tuple(depths[stage] for stage in sorted(depths)),
        patch_size=tuple(projection.shape[2:]),
        num_classes=None if classifier is None else classifier.shape[0],
        num_frames=None if time_embed is None else time_embed.shape[2] * projection.shape[2],
    )


# ---------------------------------------------------------------------------------------------- attention heads


def model_heads(model: IwinTransformer) -> tuple[int, ...]:
    """Attention heads of a model's stages."""
    heads = []
    for stage in model.layers:
        assert isinstance(stage, IwinStage)
        block = stage.blocks[0]
        assert isinstance(block, IwinBlock)
        heads.append(block.attn.num_heads)
    return tuple(heads)


def stated_heads(weights: Weights) -> tuple[int, ...] | None:
    """Attention heads of the stages as the checkpoint states them, None where it does not, or not clearly.

    It may be our config (metadata "config"), the config of the authors' image programs ("config", where the node of
    another model type holds heads too and does not count), or the text of an mmcv config (meta["config"]).
    """
    stated = {heads for heads in _statements(weights) if heads}
    return stated.pop() if len(stated) == 1 else None


def _statements(weights: Weights) -> Iterator[tuple[int, ...] | None]:
    if "config" in weights.metadata:
        try:
            yield _numbers(json.loads(weights.metadata["config"])["model"]["backbone"]["num_heads"])
        except (ValueError, KeyError, TypeError):
            return
        return
    config, meta = weights.others.get("config"), weights.others.get("meta")
    if isinstance(config, Mapping):
        node = config.get("MODEL")
        own = node.get(str(node.get("TYPE", "iwin")).upper()) if isinstance(node, Mapping) else None
        yield from _numbers_of("NUM_HEADS", own if isinstance(own, Mapping) else config)
    text = meta.get("config") if isinstance(meta, Mapping) else None
    if isinstance(text, str):
        for found in re.findall(r"\bnum_heads\s*=\s*[\[(]([\d,\s]+)[\])]", text):
            yield tuple(int(number) for number in re.findall(r"\d+", found))


def _numbers_of(key: str, node: Mapping[Any, Any]) -> Iterator[tuple[int, ...] | None]:
    for name, value in node.items():
        if name == key:
            yield _numbers(value)
        elif isinstance(value, Mapping):
            yield from _numbers_of(key, value)


def _numbers(value: Any) -> tuple[int, ...] | None:
    whole = isinstance(value, list | tuple) and all(isinstance(number, int) for number in value)
    return tuple(value) if whole else None
