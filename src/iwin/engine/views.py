"""The views of many videos in a steady stream of full chunks, so that the device never waits for one video's.

A video is decoded once for all of its views. Its views go through the model together with its neighbours': every chunk
but the last has the same size, whatever the number of views of a video and of videos of a loader's batch.

On a GPU what a chunk gives is read only after the next one has been launched, so that it is never idle while the host
looks at scores. On a CPU a few small chunks run side by side, each with its share of the threads: threads that work at
one chunk wait for each other at the end of every layer, those of different chunks never do.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from iwin.data.datasets import Batch

Forward = Callable[[Tensor], Tensor]
"""Maps uint8 views (N, T, H, W, 3) on the device to rows (N, K); it is called without gradients."""

Launch = Callable[[Tensor], Callable[[], Tensor]]
"""Begins with a chunk of views; what it returns gives its rows on the host, once they are there."""


@dataclass
class _Video:
    """A video whose views are on their way."""

    index: int
    views: int
    rows: list[Tensor] = field(default_factory=list)


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


class ViewStream:
    """Runs views through a model in full chunks.

    Args:
        forward: the model.
        layout: how the views are shared out.
        device: where the model is.
    """

    def __init__(self, forward: Forward, layout: Layout, *, device: torch.device) -> None:
        self._forward, self._layout, self._device = forward, layout, device
        self._waiting: list[Tensor] = []  # views (n, T, H, W, 3) that are not yet a full chunk
        self._launched: deque[Callable[[], Tensor]] = deque()
        self._videos: deque[_Video] = deque()

    def __call__(self, batches: Iterable[Batch]) -> Iterator[tuple[int, Tensor]]:
        """The rows of each video.

        Args:
            batches: videos and their views.

        Yields:
            For each video, in the order of the batches, its index and the rows (V, K) of its views, on the host.
        """
        if not self._layout.lanes:
            yield from self._stream(batches, _one_by_one(self._forward), ahead=1)
            return
        with _side_by_side(self._forward, self._layout.lanes) as launch:
            # As many wait as run, so that a lane that is ready first has something to go on with.
            yield from self._stream(batches, launch, ahead=2 * self._layout.lanes)

    def _stream(self, batches: Iterable[Batch], launch: Launch, *, ahead: int) -> Iterator[tuple[int, Tensor]]:
        for batch in batches:
            if not len(batch):
                continue
            views = batch.views_on(self._device).flatten(0, 1)
            self._videos.extend(_Video(index, batch.views.shape[1]) for index in batch.indices.tolist())
            if self._waiting and self._waiting[0].shape[1:] != views.shape[1:]:
                self._launch(launch)  # frames of another size cannot be in the same chunk
            for part in self._parts(views):
                self._waiting.append(part)
                if self._count == self._layout.size:
                    self._launch(launch)
                    yield from self._read(keep=ahead)
        if self._waiting:
            self._launch(launch)
        yield from self._read(keep=0)

    @property
    def _count(self) -> int:
        return sum(map(len, self._waiting))

    def _parts(self, views: Tensor) -> Iterator[Tensor]:
        """Pieces that fill the chunk that waits, and then one after the other."""
        while len(views):
            part = views[: self._layout.size - self._count]
            views = views[len(part) :]
            yield part

    def _launch(self, launch: Launch) -> None:
        chunk = self._waiting[0] if len(self._waiting) == 1 else torch.cat(self._waiting)
        self._waiting = []
        self._launched.append(launch(chunk))

    def _read(self, *, keep: int) -> Iterator[tuple[int, Tensor]]:
        """Hand the rows of all but the `keep` chunks launched last to their videos; yield those that are complete."""
        while len(self._launched) > keep:
            rows = self._launched.popleft()()
            while len(rows):
                video = self._videos[0]
                part = rows[: video.views - sum(map(len, video.rows))]
                video.rows.append(part)
                rows = rows[len(part) :]
                if sum(map(len, video.rows)) == video.views:
                    self._videos.popleft()
                    yield video.index, torch.cat(video.rows)


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
