"""The views of many videos in a steady stream of full chunks, so that the device never waits for one video's.

A video is decoded once for all of its views. Its views go through the model together with its neighbours': every chunk
but the last has the same size, whatever the number of views of a video and of videos of a loader's batch. What a chunk
gives is read only after the next one has been launched, so that a GPU is never idle while the host looks at scores.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from iwin.data.datasets import Batch


@dataclass
class _Video:
    """A video whose views are on their way."""

    index: int
    views: int
    rows: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class _Result:
    """What a chunk gave, on its way to the host."""

    rows: Tensor
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, rows: Tensor) -> "_Result":
        if rows.device.type != "cuda":
            return cls(rows.cpu(), None)
        on_host = rows.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return cls(on_host, copied)

    def read(self) -> Tensor:
        if self.copied is not None:
            self.copied.synchronize()
        return self.rows


class ViewStream:
    """Runs views through a model in full chunks.

    Args:
        forward: maps uint8 views (N, T, H, W, 3) on the device to rows (N, K).
        size: views of a chunk.
        device: where the model is.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], *, size: int, device: torch.device) -> None:
        self._forward, self._size, self._device = forward, size, device
        self._waiting: list[Tensor] = []  # views (n, T, H, W, 3) that are not yet a full chunk
        self._launched: deque[_Result] = deque()
        self._videos: deque[_Video] = deque()

    def __call__(self, batches: Iterable[Batch]) -> Iterator[tuple[int, Tensor]]:
        """The rows of each video.

        Args:
            batches: videos and their views.

        Yields:
            For each video, in the order of the batches, its index and the rows (V, K) of its views, on the host.
        """
        for batch in batches:
            if not len(batch):
                continue
            views = batch.views_on(self._device).flatten(0, 1)
            self._videos.extend(_Video(index, batch.views.shape[1]) for index in batch.indices.tolist())
            if self._waiting and self._waiting[0].shape[1:] != views.shape[1:]:
                self._launch()  # frames of another size cannot be in the same chunk
            for part in self._parts(views):
                self._waiting.append(part)
                if self._count == self._size:
                    self._launch()
                    yield from self._read(keep=1)
        if self._waiting:
            self._launch()
        yield from self._read(keep=0)

    @property
    def _count(self) -> int:
        return sum(map(len, self._waiting))

    def _parts(self, views: Tensor) -> Iterator[Tensor]:
        """Pieces that fill the chunk that waits, and then one after the other."""
        while len(views):
            part = views[: self._size - self._count]
            views = views[len(part) :]
            yield part

    def _launch(self) -> None:
        chunk = self._waiting[0] if len(self._waiting) == 1 else torch.cat(self._waiting)
        self._waiting = []
        self._launched.append(_Result.of(self._forward(chunk)))

    def _read(self, *, keep: int) -> Iterator[tuple[int, Tensor]]:
        """Hand the rows of all but the `keep` chunks launched last to their videos; yield those that are complete."""
        while len(self._launched) > keep:
            rows = self._launched.popleft().read()
            while len(rows):
                video = self._videos[0]
                part = rows[: video.views - sum(map(len, video.rows))]
                video.rows.append(part)
                rows = rows[len(part) :]
                if sum(map(len, video.rows)) == video.views:
                    self._videos.popleft()
                    yield video.index, torch.cat(video.rows)
