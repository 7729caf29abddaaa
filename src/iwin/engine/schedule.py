"""The learning rate as a pure function of where training stands: nothing to save, nothing to resume.

The rules are those of mmcv's learning-rate hooks, which the original's recipes were tuned with.
"""

import math
from dataclasses import dataclass
from typing import Literal

from iwin.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A policy over the whole run, and a warm-up that scales the policy's rate at the start.

    An iteration is one batch of the data loader: where gradients are accumulated, several iterations make one
    optimiser step, and lengths here still count iterations.

    Attributes:
        policy: "constant"; "cosine" from the base rate down to the minimum; "step" times `gamma` after each of `steps`.
        by_epoch: Whether the policy moves once an epoch, and is constant within it, or every iteration.
        min_lr: Cosine: rate at the end. Step: rate that it does not fall below.
        min_lr_ratio: Cosine: the rate at the end relative to the base rate; instead of `min_lr`.
        steps: Rising epochs (or iterations) after which the rate is multiplied by `gamma`.
        gamma: Factor of the step policy.
        warmup: "constant" holds `warmup_ratio`; "linear" and "exp" rise from it to 1, straight or exponentially.
        warmup_length: Iterations of the warm-up, or epochs (fractions allowed) where `warmup_by_epoch`.
        warmup_by_epoch: Unit of `warmup_length`.
        warmup_ratio: First rate of the warm-up relative to the policy's.
    """

    policy: Literal["constant", "cosine", "step"] = "cosine"
    by_epoch: bool = True
    min_lr: float = 0.0
    min_lr_ratio: float | None = None
    steps: tuple[int, ...] = ()
    gamma: float = 0.1
    warmup: Literal["constant", "linear", "exp"] | None = None
    warmup_length: float = 0.0
    warmup_by_epoch: bool = False
    warmup_ratio: float = 0.1

    def __post_init__(self) -> None:
        if self.min_lr and self.min_lr_ratio is not None:
            raise ConfigError("the schedule has both min_lr and min_lr_ratio: give one of them")
        if list(self.steps) != sorted(set(self.steps)):
            raise ConfigError(f"the schedule's steps must rise, got {list(self.steps)}")

    def lr(self, base_lr: float, *, iteration: int, iterations_per_epoch: int, epochs: int) -> float:
        """Learning rate of one parameter group at one iteration.

        Args:
            base_lr: The group's own rate (lr times its multiplier).
            iteration: Iterations done since the start of training; 0 at the first.
            iterations_per_epoch: Batches of the data loader.
            epochs: Epochs of the whole run.

        Returns:
            The rate to set before this iteration.
        """
        epoch = iteration // iterations_per_epoch
        if self.by_epoch:
            regular = self._regular(base_lr, progress=epoch, total=epochs)
        else:
            regular = self._regular(base_lr, progress=iteration, total=epochs * iterations_per_epoch)
        if self.warmup is None:
            return regular
        length = self.warmup_length * (iterations_per_epoch if self.warmup_by_epoch else 1)
        if iteration < length:
            return regular * self._warmup_factor(iteration / length)
        last = math.ceil(length) - 1
        if self.by_epoch and last >= 0 and last + 1 != length and last // iterations_per_epoch == epoch:
            # mmcv leaves the warm-up at the iteration that EQUALS its length. A length between two iterations (2.5
            # epochs of an odd number of batches) is never met, and the last warm-up rate stays until the next epoch.
            return regular * self._warmup_factor(last / length)
        return regular

    def _regular(self, base_lr: float, *, progress: int, total: int) -> float:
        """The policy's rate without warm-up, `progress` of `total` epochs or iterations into the run."""
        if self.policy == "constant":
            return base_lr
        if self.policy == "step":
            passed = sum(progress >= step for step in self.steps)
            return max(base_lr * self.gamma**passed, self.min_lr)
        end = self.min_lr if self.min_lr_ratio is None else base_lr * self.min_lr_ratio
        return end + 0.5 * (base_lr - end) * (math.cos(math.pi * progress / total) + 1)

    def _warmup_factor(self, done: float) -> float:
        """Warm-up rate relative to the policy's, `done` (0 .. 1) of the way through the warm-up."""
        if self.warmup == "constant":
            return self.warmup_ratio
        if self.warmup == "linear":
            return 1 - (1 - done) * (1 - self.warmup_ratio)
        return float(self.warmup_ratio ** (1 - done))
