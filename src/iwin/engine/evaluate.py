"""Multi-view scores of a whole split, and the figures they give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from iwin.data.annotations import Annotations
from iwin.data.datasets import BadVideo
from iwin.data.loader import BatchLoader
from iwin.engine.log import RunLog, progress
from iwin.engine.metrics import mean_class_accuracy, top_k_accuracy
from iwin.errors import DataError
from iwin.models.recognizer import Average, IwinRecognizer


@dataclass(frozen=True)
class Evaluation:
    """How the views of a split's videos become scores.

    Attributes:
        loader: this process's share of the split, each video once over all processes.
        annotations: the whole split.
        normalize: maps uint8 clips (B, T, H, W, 3) on the device to normalised (B, 3, T, H, W).
        average: mean over a video's views of their softmax ("prob") or of their logits ("score").
        max_views: views that go through the model at once; None sends all of a batch.
        metrics: names of the figures wanted.
        topk: the k of top-k accuracy.
        features: whether the model gives its pooled features, in the place of scores.
    """

    loader: BatchLoader
    annotations: Annotations
    normalize: Callable[[Tensor], Tensor]
    average: Average = "prob"
    max_views: int | None = None
    metrics: Sequence[str] = ("top_k_accuracy", "mean_class_accuracy")
    topk: Sequence[int] = (1, 5)
    features: bool = False


@dataclass(frozen=True)
class Scores:
    """Scores of a split.

    Attributes:
        scores: (videos, classes) float32 in the order of the annotations; NaN rows for videos that did not decode.
            With `Evaluation.features`, (videos, channels).
        labels: (videos,) int64.
        bad: the videos that did not decode.
    """

    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    bad: tuple[BadVideo, ...]

    @property
    def decoded(self) -> npt.NDArray[np.bool_]:
        """Which videos have scores."""
        mask = np.ones(len(self.labels), dtype=np.bool_)
        mask[[video.index for video in self.bad]] = False
        return mask


def score(model: IwinRecognizer, evaluation: Evaluation, *, accelerator: Accelerator, log: RunLog) -> Scores:
    """Score every video of a split exactly once, over all processes; all of them return the same scores."""
    model.eval()
    own: list[tuple[int, npt.NDArray[np.float32]]] = []
    bad: list[BadVideo] = []
    batches = progress(evaluation.loader, console=log.console, title="scoring", total=len(evaluation.loader))
    with torch.inference_mode():
        for batch in batches:
            bad.extend(batch.bad)
            if not len(batch):
                continue
            with accelerator.autocast():
                scores = model.forward_views(
                    batch.views.to(accelerator.device, non_blocking=True),
                    average=evaluation.average or "prob",
                    max_views=evaluation.max_views,
                    features=evaluation.features,
                    prepare=evaluation.normalize,
                )
            own.extend(zip(batch.indices.tolist(), scores.float().cpu().numpy(), strict=True))
    return _assemble(gather_object(own), gather_object(bad), evaluation.annotations)


def _assemble(
    rows: Sequence[tuple[int, npt.NDArray[np.float32]]], bad: Sequence[BadVideo], annotations: Annotations
) -> Scores:
    if not rows:
        raise DataError(f"{annotations.source}: no video could be decoded; the first: {bad[0].reason}")
    scores = np.full((len(annotations.samples), len(rows[0][1])), np.nan, dtype=np.float32)
    for index, row in rows:
        scores[index] = row
    labels = np.array([sample.label for sample in annotations.samples], dtype=np.int64)
    return Scores(scores, labels, tuple(sorted(bad, key=lambda video: video.index)))


def figures(scores: Scores, *, metrics: Sequence[str], topk: Sequence[int]) -> dict[str, float]:
    """The figures of a split: {"top1_acc": …, "top5_acc": …, …, "videos": …, "listed": …}.

    They rest on the videos that decoded; "videos" counts them, "listed" all of the list.
    """
    decoded = scores.decoded
    values, labels = scores.scores[decoded], scores.labels[decoded]
    result: dict[str, float] = {}
    for metric in metrics:
        if metric == "top_k_accuracy":
            accuracies = top_k_accuracy(values, labels, topk=tuple(topk))
            result |= {f"top{k}_acc": float(accuracy) for k, accuracy in zip(topk, accuracies, strict=True)}
        elif metric == "mean_class_accuracy":
            result["mean_class_accuracy"] = float(mean_class_accuracy(values, labels))
        else:
            raise DataError(f"{metric} needs a list of several labels a video, which this split is not")
    return {**result, "videos": len(values), "listed": len(decoded)}


def evaluate(
    model: IwinRecognizer, evaluation: Evaluation, *, accelerator: Accelerator, log: RunLog
) -> tuple[Scores, dict[str, float]]:
    """Score a split and give its figures."""
    scores = score(model, evaluation, accelerator=accelerator, log=log)
    return scores, figures(scores, metrics=evaluation.metrics, topk=evaluation.topk)
