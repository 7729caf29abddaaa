"""Fit a checkpoint's tensors to a model: recogniser, backbone or image weights, with a report of what went where."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from iwin.checkpoint.describe import (
    HEADS,
    LAYOUT_NAMES,
    PROJECTION,
    Description,
    Layout,
    describe,
    listed,
    model_heads,
    stated_heads,
)
from iwin.checkpoint.io import Weights
from iwin.checkpoint.source import open_weights, shown
from iwin.errors import CheckpointError, ModelError, first_of
from iwin.models.recognizer import IwinImageClassifier, IwinRecognizer
from iwin.models.zoo import SIZES, build_named, published_url

Model = IwinRecognizer | IwinImageClassifier

MIN_MATCH = 0.9
"""Share of the model's backbone parameters that a checkpoint must fill, and share of the checkpoint's own that must
have a place in the model, to be taken for weights of this model."""


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint filled in a model.

    Attributes:
        source: where it came from, as it was asked for.
        layout: what it holds: a whole recogniser, a bare video backbone, or an image model.
        loaded: names that were filled, in the model's words.
        resized: those of them whose `time_embed` was interpolated to another clip length.
        missing: names of the model that keep their own values.
        unused: names of the checkpoint, in its words, that have no place in the model.
        mismatched: names that stand in both with different shapes, and so keep the model's values.
        warnings: sentences that must not be overlooked: all tensors fit, yet the model may not be the one that was
            trained.
    """

    source: str
    layout: Layout
    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.source}: {self.details}"

    @property
    def details(self) -> str:
        """The report in words, without its source."""
        parts = [f"{LAYOUT_NAMES[self.layout]}, {len(self.loaded)} tensors loaded"]
        for title, names in [
            ("interpolated", self.resized),
            ("left as they were", self.missing),
            ("of another shape", self.mismatched),
            ("not used", self.unused),
        ]:
            if names:
                parts.append(f"{len(names)} {title} ({first_of(names, 4)})")
        return "; ".join([*parts, *self.warnings])


def load_weights(model: Model, source: str | Path | Weights, *, whole: bool = False) -> LoadReport:
    """Fill a model from a checkpoint.

    Into a recogniser go a recogniser's weights, a bare video backbone, or an image model, whose patch projection is
    inflated along time (repeated and divided by the patch length) and whose head has no place; `time_embed` of another
    clip length is interpolated.

    What the authors' program loads is loaded here with the same result. Three things differ on purpose. It asks
    `pretrained2d` what a file holds, fails on image weights that are not under "model", and with `pretrained2d=False`
    fills nothing from a recogniser's checkpoint, without a word; here the tensors tell. It fills what it can from
    weights of another size; here they are refused. It does not notice other attention heads, which no shape tells;
    here they are a warning where the checkpoint states them, an error with `whole`.

    Args:
        model: the model to fill, in place.
        source: weights that were read before, or what `source.resolve` takes: a path, an address, a Hub id; also the
            name of published weights ("kinetics400", "imagenet1k", "imagenet22k": `zoo.PUBLISHED`).
        whole: whether every tensor of the model must be filled and every tensor of the checkpoint used, as for a
            trained model; otherwise the classifier may differ and a few tensors may be missing.

    Raises:
        CheckpointError: if the checkpoint cannot be had, or does not fit; the model is left as it was.
        ModelError: if the authors published no weights of that name for this model.
    """
    target = model.state_dict()
    wanted = describe(target, Path("the model"))
    weights, name = _open(wanted, source)
    file = describe(weights.state, weights.path)
    state = dict(weights.state)
    prefix = "backbone." if isinstance(model, IwinRecognizer) and file.layout != "recognizer" else ""
    if isinstance(model, IwinRecognizer) and file.layout == "image":
        state[PROJECTION] = inflate(state[PROJECTION], model.backbone.patch_embed.patch_size[0])
    state = {prefix + key: value for key, value in state.items()}
    resized = _resize_time_embed(state, target)
    mismatched = {key for key in state.keys() & target.keys() if state[key].shape != target[key].shape}
    loaded = [key for key in target if key in state and key not in mismatched]
    report = LoadReport(
        source=name,
        layout=file.layout,
        loaded=tuple(loaded),
        resized=resized,
        missing=tuple(key for key in target if key not in state),
        unused=tuple(key.removeprefix(prefix) for key in state if key not in target),
        mismatched=tuple(sorted(mismatched)),
        warnings=_doubts(model, weights, file),
    )
    _refuse_misfit(report, weights.state, target, whole=whole, kinds=f"the checkpoint is {file}, the model {wanted}")
    for key in loaded:
        if not state[key].is_meta and not state[key].isfinite().all():  # there, tensors have no numbers
            raise CheckpointError(
                f"{name}: its weights are not finite ({key.removeprefix(prefix)} holds NaN or infinity); take a "
                "checkpoint from before its training went astray, or download it again"
            )
    model.load_state_dict({key: state[key] for key in loaded}, strict=False)
    return report


def backbone_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a backbone alone: without a classifier, and without the prefix that a recogniser gives them."""
    return {name.removeprefix("backbone."): value for name, value in state.items() if not name.startswith(HEADS)}


def inflated_state(weights: Weights, name: str) -> tuple[dict[str, Tensor], LoadReport]:
    """An image model's weights as those of a video backbone, with what went where.

    Args:
        weights: the image model's.
        name: the video model, one of `zoo.VIDEO_MODELS`.

    Raises:
        CheckpointError: if these are no image weights, or of another size.
        ModelError: if there is no such video model.
    """
    model = build_named(name)
    if not isinstance(model, IwinRecognizer):
        raise ModelError(f"{name} is an image model: name the video model that the weights are for")
    report = load_weights(model, weights)
    if report.layout != "image":
        raise CheckpointError(f"{weights.path}: is {LAYOUT_NAMES[report.layout]} and needs no inflation")
    return dict(model.backbone.state_dict()), report


def inflate(projection: Tensor, frames: int) -> Tensor:
    """An image patch projection (C, 3, h, w) as a video one (C, 3, frames, h, w), equal to it on a still clip."""
    return projection.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames


def resize_time_embed(embedding: Tensor, steps: int) -> Tensor:
    """`time_embed` (1, C, T', 1, 1) interpolated linearly to another number of time steps."""
    return F.interpolate(embedding[..., 0, 0], size=steps, mode="linear", align_corners=False)[..., None, None]


def _open(wanted: Description, source: str | Path | Weights) -> tuple[Weights, str]:
    """The weights, and how a report calls them."""
    if not isinstance(source, str | Path | Weights):
        raise CheckpointError(
            f"weights are named by a path, an address or a name such as 'kinetics400', not {source!r}"
        )
    if isinstance(source, Weights):
        return source, str(source.path)
    if isinstance(source, str) and not Path(source).is_file():
        image = wanted.layout == "image"
        source = published_url(source, embed_dim=wanted.embed_dim, depths=wanted.depths, image=image) or source
    return open_weights(source), shown(source)


def _resize_time_embed(state: dict[str, Tensor], target: Mapping[str, Tensor]) -> tuple[str, ...]:
    resized = []
    for name in ("time_embed", "backbone.time_embed"):
        if name in state and name in target and state[name].shape[:2] == target[name].shape[:2]:
            steps = target[name].shape[2]
            if state[name].shape[2] != steps:
                state[name] = resize_time_embed(state[name], steps)
                resized.append(name)
    return tuple(resized)


def _doubts(model: Model, weights: Weights, file: Description) -> tuple[str, ...]:
    """What may be wrong although every tensor fits: the attention heads, which no shape tells."""
    heads = model_heads(model.backbone if isinstance(model, IwinRecognizer) else model)
    stated = stated_heads(weights)
    if stated is not None and stated != heads:
        return (f"it was trained with {listed(stated)} attention heads, but the model has {listed(heads)}",)
    small = SIZES["small"]
    if stated is None and file.layout == "image" and (file.embed_dim, file.depths) == (small.embed_dim, small.depths):
        return (
            f"it does not say how many attention heads it was trained with; the model has {listed(heads)}, while the "
            "authors' image models of this size have 3, 4, 8, 16 (ImageNet-1K) or 3, 6, 12, 24 (ImageNet-22K)",
        )
    return ()


def _refuse_misfit(
    report: LoadReport, given: Mapping[str, Tensor], target: Mapping[str, Tensor], *, whole: bool, kinds: str
) -> None:
    own = [name for name in target if not name.startswith(HEADS)]
    filled = _share(target, own, but={*report.missing, *report.mismatched})
    # Video models have no absolute positions; the authors' program drops those of an image model too.
    theirs = [name for name in given if not name.startswith(HEADS) and not name.endswith("absolute_pos_embed")]
    used = _share(given, theirs, but=report.unused)
    misfit = f"{report.source}: does not fit the model"
    advice = f"{kinds}; choose the model that it was trained with"
    if filled < MIN_MATCH:
        raise CheckpointError(f"{misfit}: it fills {filled:.0%} of the backbone; {advice} ({report.details})")
    if used < MIN_MATCH:
        raise CheckpointError(f"{misfit}: only {used:.0%} of its backbone has a place; {advice} ({report.details})")
    if not set(own).isdisjoint(report.mismatched):
        raise CheckpointError(f"{misfit}: {advice} ({report.details})")
    if whole and (report.missing or report.unused or report.mismatched or report.warnings):
        raise CheckpointError(f"{misfit}: {report.details}; is this the config that it was trained with?")


def _share(tensors: Mapping[str, Tensor], names: Collection[str], *, but: Collection[str]) -> float:
    """Share of the parameters under `names` that are not also under `but`."""
    total = sum(tensors[name].numel() for name in names)
    return 1 - sum(tensors[name].numel() for name in names if name in but) / total
