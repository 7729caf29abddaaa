"""Multi-view scores of a whole split, and the figures they give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from iwin.data.annotations import Annotations, Sample
from iwin.data.loader import BatchLoader
from iwin.engine.bad_files import BadFiles
from iwin.engine.log import RunLog, progress
from iwin.engine.metrics import mean_average_precision, mean_class_accuracy, top_k_accuracy
from iwin.engine.views import ViewStream
from iwin.errors import BadVideosError, DataError
from iwin.models.lanes import Layout
from iwin.models.recognizer import Average, IwinRecognizer, average_views, check_finite, pool

VIEWS_AT_ONCE = 8
"""Views that may be in the model at the same time where nothing else is asked for."""


@dataclass(frozen=True)
class Evaluation:
    """How the views of a split's videos become scores.

    Attributes:
        loader: this process's share of the split, each video once over all processes.
        annotations: the whole split.
        split: its name, as in "val".
        normalize: maps uint8 clips (B, T, H, W, 3) on the device to normalised (B, 3, T, H, W).
        average: how a video's score comes of its views' logits (`average_views`).
        max_views: views that may be in the model at the same time, of one video or of several.
        metrics: names of the figures wanted.
        topk: the k of top-k accuracy.
        num_classes: classes, where a video can have several labels; None where it has one.
        features: whether the model gives its pooled features, in the place of scores.
    """

    loader: BatchLoader
    annotations: Annotations
    split: str
    normalize: Callable[[Tensor], Tensor]
    average: Average = "prob"
    max_views: int = VIEWS_AT_ONCE
    metrics: Sequence[str] = ("top_k_accuracy", "mean_class_accuracy")
    topk: Sequence[int] = (1, 5)
    num_classes: int | None = None
    features: bool = False


@dataclass(frozen=True)
class Scores:
    """Scores of a split.

    Attributes:
        scores: (videos, classes) float32 in the order of the annotations; NaN rows for videos that did not decode.
            With `Evaluation.features`, (videos, channels).
        labels: (videos,) int64; for several labels a video, 1 for each of its classes, (videos, classes).
        decoded: (videos,) bool: which videos have scores.
    """

    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    decoded: npt.NDArray[np.bool_]


def score(model: IwinRecognizer, evaluation: Evaluation, *, accelerator: Accelerator, log: RunLog) -> Scores:
    """Score every video of a split exactly once, over all processes; all of them return the same scores.

    A process that meets too many bad videos leaves the rest: `evaluate` then refuses the split.
    """
    model.eval()

    def forward(views: Tensor) -> Tensor:
        clips = evaluation.normalize(views)
        with accelerator.autocast():
            rows = pool(model.forward_features(clips)) if evaluation.features else model(clips)
        return rows.float()

    loader = evaluation.loader
    batches = progress(loader, console=log.console, title="scoring", total=len(loader))
    readable = takewhile(lambda _: not loader.bad.exceeded, batches)
    layout = Layout.on(accelerator.device, evaluation.max_views, model=model)
    stream = ViewStream(forward, layout, device=accelerator.device)
    average = "score" if evaluation.features else evaluation.average
    own = [(index, average_views(rows, len(rows), average=average)[0].numpy()) for index, rows in stream(readable)]
    return _assemble(gather_object(own), evaluation)


def check_scores(scores: Scores, samples: Sequence[Sample]) -> None:
    """Refuse scores, or features, that are no numbers.

    Raises:
        ModelError: naming the first video that has some.
    """
    for sample, row, decoded in zip(samples, scores.scores, scores.decoded, strict=True):
        if decoded:
            check_finite(torch.from_numpy(row), sample.path)


def _assemble(rows: Sequence[tuple[int, npt.NDArray[np.float32]]], evaluation: Evaluation) -> Scores:
    samples = evaluation.annotations.samples
    scores = np.full((len(samples), len(rows[0][1]) if rows else 0), np.nan, dtype=np.float32)
    decoded = np.zeros(len(samples), dtype=np.bool_)
    for index, row in rows:
        scores[index] = row
        decoded[index] = True
    labels = label_array([sample.labels for sample in samples], num_classes=evaluation.num_classes)
    return Scores(scores, labels, decoded)


def label_array(labels: Sequence[tuple[int, ...]], *, num_classes: int | None) -> npt.NDArray[np.int64]:
    """The labels of videos as `Scores` has them.

    Args:
        labels: of each video.
        num_classes: classes, where a video can have several labels; None where it has one.

    Raises:
        DataError: if a label is none of the classes.
    """
    if num_classes is None:
        return np.array([own[0] for own in labels], dtype=np.int64)
    highest = max(map(max, labels))
    if highest >= num_classes:
        raise DataError(f"label {highest} is not one of the {num_classes} classes 0 .. {num_classes - 1}")
    array = np.zeros((len(labels), num_classes), dtype=np.int64)
    for row, own in zip(array, labels, strict=True):
        row[list(own)] = 1
    return array


def figures(scores: Scores, *, metrics: Sequence[str], topk: Sequence[int]) -> dict[str, float]:
    """The figures of a split: {"top1_acc": …, "top5_acc": …, …, "videos": …, "listed": …}.

    They rest on the videos that decoded; "videos" counts them, "listed" all of the list. Where some did not decode,
    each figure stands there a second time, as in "top1_acc_listed", with them counted as wrong.

    Raises:
        DataError: if a metric is not for labels of this kind.
    """
    decoded = scores.decoded
    result: dict[str, float] = {}
    whole: dict[str, float] = {}
    for metric in metrics:
        if (metric == "mean_average_precision") != (scores.labels.ndim == 2):
            kind = "one label" if scores.labels.ndim == 1 else "several labels"
            raise DataError(f"{metric} is not for lists of {kind} a video (evaluation.metrics)")
        values, labels = scores.scores[decoded], scores.labels[decoded]
        if metric == "top_k_accuracy":
            accuracies = top_k_accuracy(values, labels, topk=tuple(topk))
            own = {f"top{k}_acc": float(accuracy) for k, accuracy in zip(topk, accuracies, strict=True)}
            result |= own
            whole |= {name: value * float(decoded.mean()) for name, value in own.items()}
        elif metric == "mean_class_accuracy":
            result[metric] = mean_class_accuracy(values, labels)
            whole[metric] = mean_class_accuracy(values, labels, unscored=scores.labels[~decoded])
        else:
            result[metric] = mean_average_precision(values, labels)
            lowest = np.where(decoded[:, None], scores.scores, -np.inf)
            whole[metric] = mean_average_precision(lowest, scores.labels)
    if not decoded.all():
        result |= {f"{name}_listed": value for name, value in whole.items()}
    return {**result, "videos": int(decoded.sum()), "listed": len(decoded)}


def evaluate(
    model: IwinRecognizer, evaluation: Evaluation, *, accelerator: Accelerator, log: RunLog, bad_files: BadFiles
) -> tuple[Scores, dict[str, float]]:
    """Score a split, name its bad videos and give its figures.

    Raises:
        BadVideosError: if too many videos could not be read, or none was.
    """
    scores = score(model, evaluation, accelerator=accelerator, log=log)
    bad = evaluation.loader.bad
    bad_files.tell(evaluation.split, bad)
    if bad.exceeded or not scores.decoded.any():
        raise BadVideosError(f"{evaluation.annotations.source}: {bad_files.complaint(bad)}")
    return scores, figures(scores, metrics=evaluation.metrics, topk=evaluation.topk)
