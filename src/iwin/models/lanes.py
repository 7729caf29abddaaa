"""Running a model on many views: chunk after chunk on a GPU, small chunks side by side on a CPU.

Threads that work at one chunk wait for each other at the end of every layer, those of different chunks never do: a CPU
with n threads takes less time for n chunks of a thread each than for one after the other, above all for small ones.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

Forward = Callable[[Tensor], Tensor]
"""Maps views (N, …) on the device to rows (N, K); it is called without gradients, on a CPU from several threads."""

Launch = Callable[[Tensor], Callable[[], Tensor]]
"""Begins with a chunk of views; what it returns gives its rows on the host, once they are there."""


@dataclass(frozen=True)
class Layout:
    """How views are shared out.

    Attributes:
        size: views of a chunk.
        lanes: chunks side by side, each in a thread with its share of PyTorch's own; 0 launches one after the other,
            as a GPU wants it.
    """

    size: int
    lanes: int = 0

    @property
    def ahead(self) -> int:
        """Chunks to launch before the first is read, so that the device, or a lane that is done first, has work."""
        return 2 * self.lanes or 1

    @classmethod
    def on(cls, device: torch.device, at_once: int, *, total: int | None = None) -> "Layout":
        """The layout for a device; on a CPU the one that keeps the most threads busy with the smallest chunks.

        Args:
            device: where the model is.
            at_once: views that may be in the model at the same time.
            total: views that there are; None for so many that it does not matter which lane ends last.
        """
        if device.type != "cpu":
            return cls(at_once)
        threads = torch.get_num_threads()
        counts = [count for count in range(1, min(threads, at_once) + 1) if total is None or total % count == 0]
        lanes = max(counts, key=lambda count: (threads // count * count, count))
        # Measured: views in twos take less time than single ones where they are small, as much where they are large.
        return cls(1 if total is not None else min(2, at_once // lanes), lanes)


def run_views(forward: Forward, views: Tensor, layout: Layout) -> Tensor:
    """The rows (N, K) of views (N, …), on the host."""
    with launching(forward, layout) as launch:
        begun = [launch(chunk) for chunk in views.split(layout.size)]
        return torch.cat([read() for read in begun])


@contextmanager
def launching(forward: Forward, layout: Layout) -> Iterator[Launch]:
    """A way to launch chunks as a layout says; within the context, which lanes do not outlive."""
    if layout.lanes:
        with _side_by_side(forward, layout.lanes) as launch:
            yield launch
    else:
        yield _one_by_one(forward)


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
