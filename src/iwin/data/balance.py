"""Which videos an epoch draws, and how often: index arithmetic, no video."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def balanced(labels: Sequence[int], *, power: float, rng: np.random.Generator) -> Indices:
    """As many draws as there are videos, shared out over the classes, in random order.

    A class of n videos gets a share proportional to n ** power: 1 leaves the classes as they are, 0.5 weighs them by
    the square root of their size, 0 gives all the same. Shares that are no whole number are rounded up or down at
    random, right in the mean. Within a class the videos take turns: the numbers of their draws differ by one at most.

    Args:
        labels: class of each video, from 0.
        power: 0 .. 1.
        rng: source of all random choices.

    Returns:
        Places of videos, shape (len(labels),).
    """
    classes = np.asarray(labels, dtype=np.int64)
    sizes = np.bincount(classes)
    weights = np.where(sizes > 0, sizes.astype(np.float64) ** power, 0.0)
    # One random offset for all borders keeps the sum of the rounded shares.
    borders = np.floor(np.cumsum(weights) / weights.sum() * len(classes) + rng.random()).astype(np.int64)
    borders[-1] = max(borders[-1], len(classes))
    counts = np.diff(np.minimum(borders, len(classes)), prepend=0)
    draws = [
        np.resize(rng.permutation(np.flatnonzero(classes == label)), counts[label]) for label in np.flatnonzero(counts)
    ]
    return rng.permutation(np.concatenate(draws))


def occurrences(indices: Indices) -> Indices:
    """How often each entry stood in the array before."""
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.arange(len(indices)) - np.repeat(starts, np.diff(np.r_[starts, len(indices)]))
    result = np.empty_like(counts)
    result[order] = counts
    return result
