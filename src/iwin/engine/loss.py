"""The training loss."""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(
    logits: Tensor, targets: Tensor, *, class_weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Softmax cross entropy, averaged over the clips by the weight of their targets.

    `torch.nn.functional.cross_entropy` averages in this way where the targets are labels without smoothing; where they
    are probabilities it divides by the number of clips. The original always divides by the weight.

    Args:
        logits: (N, K) float32.
        targets: Labels (N,) int64, or probabilities (N, K) that sum to 1.
        class_weights: (K,), at least one target's above 0; None weighs all classes alike.
        smoothing: Share of the probability that is spread evenly over all classes, 0 .. 1.

    Returns:
        The mean loss, of shape ().
    """
    probabilities = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1])
    probabilities = smooth(probabilities.to(logits.dtype), smoothing)
    total = F.cross_entropy(logits, probabilities, class_weights, reduction="sum")
    return total / (len(logits) if class_weights is None else (probabilities * class_weights).sum())


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, *, class_weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Sigmoid cross entropy of every class by itself, averaged over clips and classes.

    Args:
        logits: (N, K) float32.
        targets: Labels (N,) int64, or the share of each class (N, K), 0 .. 1.
        class_weights: (K,); None weighs all classes alike.
        smoothing: Share of the targets that is spread evenly over all classes, 0 .. 1.

    Returns:
        The mean loss, of shape ().
    """
    shares = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1])
    return F.binary_cross_entropy_with_logits(logits, smooth(shares.to(logits.dtype), smoothing), class_weights)


def smooth(probabilities: Tensor, smoothing: float) -> Tensor:
    """Take a share of probabilities (N, K) away and spread as much of a whole evenly over all classes."""
    return probabilities * (1 - smoothing) + smoothing / probabilities.shape[1]
