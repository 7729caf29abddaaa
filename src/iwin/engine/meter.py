"""Running figures of training between two log lines."""

import time
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor


class Meter:
    """Loss, accuracy and where the time goes, averaged since the last reading.

    Sums stay on the device until they are read, so that measuring does not make the host wait for it.

    Args:
        accelerator: the run's; readings are averages over its processes.
        counted: `sums` of a part of the run that was stopped before its next reading.
    """

    def __init__(self, accelerator: Accelerator, counted: Sequence[float] = ()) -> None:
        self.accelerator = accelerator
        # Sums of the loss, top-1 hits, top-5 hits and clips. Those of all processes before are counted by one of them.
        before = counted if counted and accelerator.is_main_process else (0.0, 0.0, 0.0, 0.0)
        self._sums = torch.tensor(before, device=accelerator.device)
        self._waited = 0.0
        self._batches = 0
        self._step: dict[str, float] = {}
        self._begun = self._asked = time.perf_counter()

    def data_arrived(self) -> None:
        """The next batch is here; the time since it was asked for was spent waiting."""
        self._waited += time.perf_counter() - self._asked

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Count a batch: its mean loss, logits (B, K) and labels (B,) or shares of the classes (B, K)."""
        hits = _hits(logits.detach(), targets)
        counts = [loss.detach() * len(targets), hits[:, 0].sum(), hits.any(1).sum(), hits.new_tensor(1) * len(targets)]
        self._sums += torch.stack([count.float() for count in counts])
        self._batches += 1

    def stepped(self, *, lr: float, grad_norm: float) -> None:
        """An optimiser step was taken."""
        self._step = {"lr": lr, "grad_norm": grad_norm}

    def ready_for_data(self) -> None:
        """The loop is about to ask for the next batch."""
        self._asked = time.perf_counter()

    def sums(self) -> tuple[float, ...]:
        """What has been counted since the last reading, over all processes, for a meter that goes on from here."""
        return tuple(self.accelerator.reduce(self._sums).tolist())

    def read(self) -> dict[str, float]:
        """Averages since the last reading, over all processes; times are seconds a batch."""
        loss, top1, top5, clips = self.accelerator.reduce(self._sums).tolist()
        now = time.perf_counter()
        record = {
            **self._step,
            "loss": loss / clips,
            "top1_acc": top1 / clips,
            "top5_acc": top5 / clips,
            "time": (now - self._begun) / self._batches,
            "data_time": self._waited / self._batches,
        }
        if self.accelerator.device.type == "cuda":
            record["memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
        self._sums.zero_()
        self._waited, self._batches, self._begun = 0.0, 0, now
        return record


def _hits(logits: Tensor, targets: Tensor) -> Tensor:
    """Whether the five highest classes are right, (B, up to 5).

    A clip that several classes share, mixed or with several labels, is of each class whose share none exceeds.
    """
    top = logits.topk(min(5, logits.shape[1]), dim=1).indices
    if targets.ndim == 1:
        return top == targets[:, None]
    return targets.gather(1, top) == targets.max(1, keepdim=True).values
