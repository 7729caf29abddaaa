"""Running a model on many views: chunk after chunk on a GPU, small chunks side by side on a CPU.

Threads that work at one chunk wait for each other at the end of every layer, those of different chunks never do: a CPU
with n threads takes less time for n chunks of a thread each than for one after the other, above all for small ones.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]
"""Maps uint8 views (N, T, H, W, 3) on the device to rows (N, K); called without gradients, on a CPU by many threads."""

Launch = Callable[[Tensor], Callable[[], Tensor]]
"""Begins with a chunk of views; what it returns gives its rows on the host, once they are there."""

_CHUNK_PIXELS = 1_000_000
"""Of a chunk on a CPU, about. Measured: smaller ones pay for starting each layer, larger ones leave the caches."""


@dataclass(frozen=True)
class Layout:
    """How views are shared out.

    Attributes:
        at_once: views that may be in the model at the same time.
        lanes: chunks side by side, each in a thread with its share of PyTorch's own; 1 runs one after the other.
        total: views that there are, a multiple of the lanes; None for so many that it does not matter which lane ends
            last.
    """

    at_once: int
    lanes: int = 1
    total: int | None = None

    @classmethod
    def on(cls, device: torch.device, at_once: int, *, model: nn.Module, total: int | None = None) -> "Layout":
        """The layout for a model on a device: on a CPU the lanes that keep the most threads busy, elsewhere one.

        A compiled model has one as well: several threads that are the first to call it would all compile it.
        """
        if device.type != "cpu" or any(module._compiled_call_impl is not None for module in model.modules()):
            return cls(at_once, total=total)
        threads = torch.get_num_threads()
        counts = [count for count in range(1, min(threads, at_once) + 1) if total is None or total % count == 0]
        return cls(at_once, max(counts, key=lambda count: (threads // count * count, count)), total)

    @property
    def ahead(self) -> int:
        """Chunks to launch before the first is read, so that the device, or a lane that is done first, has work."""
        return 1 if self.lanes == 1 else 2 * self.lanes

    def size(self, view: Sequence[int]) -> int:
        """How many views of a shape (T, H, W, 3) make a chunk."""
        if self.lanes == 1:
            return self.at_once
        most = max(1, min(self.at_once // self.lanes, _CHUNK_PIXELS // math.prod(view[:-1])))
        if self.total is None:
            return most
        share = self.total // self.lanes
        return max(size for size in range(1, most + 1) if share % size == 0)


def run_views(forward: Forward, views: Tensor, layout: Layout) -> Tensor:
    """The rows (N, K) of views (N, T, H, W, 3), on the host."""
    with launching(forward, layout) as launch:
        begun = [launch(chunk) for chunk in views.split(layout.size(views.shape[1:]))]
        return torch.cat([read() for read in begun])


@contextmanager
def launching(forward: Forward, layout: Layout) -> Iterator[Launch]:
    """A way to launch chunks as a layout says; within the context, which lanes do not outlive."""
    if layout.lanes == 1:
        yield _one_by_one(forward)
    else:
        with _side_by_side(forward, layout.lanes) as launch:
            yield launch


def _one_by_one(forward: Forward) -> Launch:
    """Chunk after chunk; on a GPU their rows come to the host while the next ones run."""

    def launch(chunk: Tensor) -> Callable[[], Tensor]:
        with torch.inference_mode():
            rows = forward(chunk)
            if rows.device.type != "cuda":
                rows = rows.cpu()
                return lambda: rows
            on_host = rows.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def read() -> Tensor:
            copied.synchronize()
            return on_host

        return read

    return launch


@contextmanager
def _side_by_side(forward: Forward, lanes: int) -> Iterator[Launch]:
    """Chunks in threads of their own."""
    own = torch.get_num_threads()
    ready = threading.Barrier(lanes + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread gets the number that was set last when it first asks: now, and not later
        torch.set_num_threads(max(1, own // lanes))  # of the lane; others keep theirs
        ready.wait()

    def run(chunk: Tensor) -> Tensor:
        with torch.inference_mode():
            return forward(chunk)

    with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as pool:
        for _ in range(lanes):
            pool.submit(begin)
        ready.wait()
        torch.set_num_threads(own)  # for threads that begin later
        try:
            yield lambda chunk: pool.submit(run, chunk).result
        finally:
            pool.shutdown(cancel_futures=True)
