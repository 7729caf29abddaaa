"""Scores of a classifier, from numpy arrays: N videos, C classes.

Two rules hold for all functions here. Equal scores: the smaller class index ranks first, so the prediction is the same
in every metric and on every machine (the original took an order that depends on numpy's version and the processor for
top-k, and the smallest index for the rest). NaN: it ranks above every number, as numpy sorts it, and NaNs are equal to
each other; a caller that must not trust such scores has to look for them itself.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from iwin.errors import DataError

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]


def _check(scores: Floats, labels: Labels) -> None:
    """One label within 0 .. C - 1 for each of at least one row of scores."""
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or scores.size == 0:
        raise DataError(
            f"metrics need scores of shape (videos, classes) and one label a video, at least one of each; "
            f"got scores {scores.shape} and labels {labels.shape}"
        )
    _check_range(labels, num_classes=scores.shape[1], what="label")


def _check_range(classes: Labels, *, num_classes: int, what: str) -> None:
    outside = classes[(classes < 0) | (classes >= num_classes)]
    if outside.size:
        raise DataError(f"{what} {outside[0]} is not one of the {num_classes} classes 0 .. {num_classes - 1}")


def label_ranks(scores: Floats, labels: Labels) -> npt.NDArray[np.int64]:
    """Number of classes that rank before each video's label: 0 where the prediction is right.

    Args:
        scores: Scores of any scale, shape (N, C).
        labels: Class indices, shape (N,).

    Returns:
        Ranks within 0 .. C - 1, shape (N,).

    Raises:
        DataError: The shapes do not belong together or a label is no class.
    """
    _check(scores, labels)
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    higher = (scores > own) | (np.isnan(scores) & ~np.isnan(own))
    equal = (scores == own) | (np.isnan(scores) & np.isnan(own))
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return np.count_nonzero(higher | (equal & earlier), axis=1).astype(np.int64)


def top_k_accuracy(scores: Floats, labels: Labels, *, topk: Sequence[int] = (1, 5)) -> tuple[float, ...]:
    """Share of the videos whose label is among the k highest scores.

    Args:
        scores: Scores of any scale, shape (N, C).
        labels: Class indices, shape (N,).
        topk: Values of k; 1.0 results where k is C or more.

    Returns:
        A share within 0 .. 1 for each k.

    Raises:
        DataError: The shapes do not belong together or a label is no class.
    """
    ranks = label_ranks(scores, labels)
    return tuple(float(np.mean(ranks < k)) for k in topk)


def confusion_matrix(
    predictions: Labels,
    labels: Labels,
    *,
    num_classes: int,
    normalize: Literal["true", "predicted", "all"] | None = None,
) -> npt.NDArray[np.float64]:
    """How often each class was taken for each.

    Args:
        predictions: Predicted class indices, shape (N,).
        labels: True class indices, shape (N,).
        num_classes: Number of classes (C).
        normalize: Divide by the videos of each true class (row), of each predicted class (column) or by all videos;
            rows and columns without a video stay 0. None counts.

    Returns:
        Shape (C, C): rows are true classes, columns predicted ones.

    Raises:
        DataError: The shapes differ or an index is no class.
    """
    if predictions.ndim != 1 or predictions.shape != labels.shape:
        raise DataError(f"one prediction a label is needed, got {predictions.shape} and {labels.shape}")
    _check_range(predictions, num_classes=num_classes, what="prediction")
    _check_range(labels, num_classes=num_classes, what="label")
    cells = labels.astype(np.int64) * num_classes + predictions
    counts = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.float64)
    if normalize is None:
        return counts
    axis = {"true": 1, "predicted": 0, "all": None}[normalize]
    return counts / np.maximum(counts.sum(axis=axis, keepdims=True), 1)


def mean_class_accuracy(scores: Floats, labels: Labels, *, unscored: Labels | None = None) -> float:
    """Mean over the classes of the share of their videos that are predicted right.

    As in the original, a class that is predicted but has no video counts as 0; a class with neither is left out.

    Args:
        scores: Scores of any scale, shape (N, C).
        labels: Class indices, shape (N,).
        unscored: Class indices of videos without scores, which count as predicted wrong; shape (M,).

    Returns:
        A share within 0 .. 1.

    Raises:
        DataError: The shapes do not belong together or a label is no class.
    """
    _check(scores, labels)
    num_classes = scores.shape[1]
    predictions = np.argmax(scores, axis=1)
    videos = np.bincount(labels, minlength=num_classes)
    if unscored is not None:
        _check_range(unscored, num_classes=num_classes, what="label")
        videos += np.bincount(unscored, minlength=num_classes)
    hits = np.bincount(labels[predictions == labels], minlength=num_classes)
    seen = (videos > 0) | (np.bincount(predictions, minlength=num_classes) > 0)
    return float(np.mean(hits[seen] / np.maximum(videos[seen], 1)))


def average_precision(scores: Floats, positives: npt.NDArray[np.bool_]) -> float:
    """Area under the precision-recall curve of one class, as a sum of steps; equal scores are one step.

    Args:
        scores: Scores of any scale, shape (N,).
        positives: Whether each video is of the class, shape (N,).

    Returns:
        A share within 0 .. 1; NaN where no video is of the class.
    """
    if not positives.any():
        return float("nan")
    _, level = np.unique(scores, return_inverse=True)
    retrieved = np.cumsum(np.bincount(level)[::-1])
    hits = np.cumsum(np.bincount(level, weights=positives)[::-1])
    return float(np.sum(np.diff(hits, prepend=0) / hits[-1] * (hits / retrieved)))


def mean_average_precision(scores: Floats, labels: npt.NDArray[np.number]) -> float:
    """Mean over the classes of their average precision (several labels a video).

    Args:
        scores: Scores of any scale, shape (N, C).
        labels: 1 where the video is of the class, else 0, shape (N, C).

    Returns:
        A share within 0 .. 1 over the classes that have a video; NaN where none has.

    Raises:
        DataError: The shapes differ.
    """
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise DataError(
            f"mean average precision needs scores and multi-hot labels of one shape (videos, classes), "
            f"got {scores.shape} and {labels.shape}"
        )
    per_class = [average_precision(*columns) for columns in zip(scores.T, labels.T > 0, strict=True)]
    known = [value for value in per_class if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
