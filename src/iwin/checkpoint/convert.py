"""Fit a checkpoint's tensors to a model: recogniser, backbone or image weights, with a report of what went where."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from iwin.checkpoint.io import read_weights
from iwin.errors import CheckpointError
from iwin.models.recognizer import IwinImageClassifier, IwinRecognizer

Layout = Literal["recognizer", "backbone", "image"]

PROJECTION = "patch_embed.proj.weight"
MIN_MATCH = 0.9
"""Share of the model's backbone parameters that a checkpoint must fill to be taken for weights of this model."""


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint filled in a model.

    Attributes:
        path: the checkpoint.
        layout: what it holds: a whole recogniser, a bare video backbone, or an image model.
        loaded: names that were filled, in the model's words.
        resized: those of them whose `time_embed` was interpolated to another clip length.
        missing: names of the model that keep their own values.
        unused: names of the checkpoint, in its words, that have no place in the model.
        mismatched: names that stand in both with different shapes, and so keep the model's values.
    """

    path: Path
    layout: Layout
    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: tuple[str, ...]

    def __str__(self) -> str:
        what = {"recognizer": "recogniser", "backbone": "video backbone", "image": "image model, inflated"}[self.layout]
        parts = [f"{self.path}: {what}, {len(self.loaded)} tensors loaded"]
        for title, names in [
            ("interpolated", self.resized),
            ("left as they were", self.missing),
            ("of another shape", self.mismatched),
            ("not used", self.unused),
        ]:
            if names:
                shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
                parts.append(f"{len(names)} {title} ({shown})")
        return "; ".join(parts)


def load_weights(model: IwinRecognizer | IwinImageClassifier, source: str | Path, *, whole: bool = False) -> LoadReport:
    """Fill a model from a checkpoint file.

    Into a recogniser go a recogniser's weights, a bare video backbone, or an image model, whose patch projection is
    inflated along time (repeated and divided by the patch length) and whose head has no place; `time_embed` of another
    clip length is interpolated.

    Args:
        model: the model to fill, in place.
        source: a file that `read_weights` reads.
        whole: whether every tensor of the model must be filled and every tensor of the file used; otherwise the
            classifier may differ and a few tensors may be missing.

    Raises:
        CheckpointError: if the checkpoint does not fit; the model is left as it was.
    """
    weights = read_weights(source)
    layout = detect_layout(weights.state, weights.path)
    target = model.state_dict()
    state = dict(weights.state)
    prefix = "backbone." if isinstance(model, IwinRecognizer) and layout != "recognizer" else ""
    if isinstance(model, IwinRecognizer) and layout == "image":
        state[PROJECTION] = inflate(state[PROJECTION], model.backbone.patch_embed.patch_size[0])
    state = {prefix + name: value for name, value in state.items()}
    resized = _resize_time_embed(state, target)
    mismatched = {name for name in state.keys() & target.keys() if state[name].shape != target[name].shape}
    loaded = [name for name in target if name in state and name not in mismatched]
    report = LoadReport(
        path=weights.path,
        layout=layout,
        loaded=tuple(loaded),
        resized=resized,
        missing=tuple(name for name in target if name not in state),
        unused=tuple(name.removeprefix(prefix) for name in state if name not in target),
        mismatched=tuple(sorted(mismatched)),
    )
    _refuse_misfit(report, target, whole=whole)
    model.load_state_dict({name: state[name] for name in loaded}, strict=False)
    return report


def detect_layout(state: Mapping[str, Tensor], path: Path) -> Layout:
    """What a state dict holds, told by its names and the patch projection's shape.

    Raises:
        CheckpointError: if it is no Iwin model's.
    """
    if f"backbone.{PROJECTION}" in state:
        return "recognizer"
    if PROJECTION in state:
        return "backbone" if state[PROJECTION].ndim == 5 else "image"
    names = ", ".join(list(state)[:3])
    raise CheckpointError(f"{path}: is not an Iwin checkpoint: it has no {PROJECTION!r} but names such as {names}")


def inflate(projection: Tensor, frames: int) -> Tensor:
    """An image patch projection (C, 3, h, w) as a video one (C, 3, frames, h, w), equal to it on a still clip."""
    return projection.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames


def resize_time_embed(embedding: Tensor, steps: int) -> Tensor:
    """`time_embed` (1, C, T', 1, 1) interpolated linearly to another number of time steps."""
    return F.interpolate(embedding[..., 0, 0], size=steps, mode="linear", align_corners=False)[..., None, None]


def _resize_time_embed(state: dict[str, Tensor], target: Mapping[str, Tensor]) -> tuple[str, ...]:
    resized = []
    for name in ("time_embed", "backbone.time_embed"):
        if name in state and name in target and state[name].shape[:2] == target[name].shape[:2]:
            steps = target[name].shape[2]
            if state[name].shape[2] != steps:
                state[name] = resize_time_embed(state[name], steps)
                resized.append(name)
    return tuple(resized)


def _refuse_misfit(report: LoadReport, target: Mapping[str, Tensor], *, whole: bool) -> None:
    if whole and (report.missing or report.unused or report.mismatched):
        raise CheckpointError(f"does not fit the model: {report}; is this the config that it was trained with?")
    backbone = {name for name in target if not name.startswith(("cls_head.", "head."))}
    total = sum(target[name].numel() for name in backbone)
    filled = sum(target[name].numel() for name in backbone.intersection(report.loaded))
    if filled < MIN_MATCH * total:
        raise CheckpointError(
            f"does not fit the model: it fills {filled / total:.0%} of the backbone; {report}. "
            "Choose the model size that it was trained with"
        )
