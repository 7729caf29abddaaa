"""The views of many videos in a steady stream of full chunks, so that the device never waits for one video's.

A video is decoded once for all of its views. Its views go through the model together with its neighbours': every chunk
but the last has the same size, whatever the number of views of a video and of videos of a loader's batch.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from iwin.data.datasets import Batch
from iwin.models.lanes import Forward, Launch, Layout, launching


@dataclass
class _Video:
    """A video whose views are on their way."""

    index: int
    views: int
    rows: list[Tensor] = field(default_factory=list)


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
        with launching(self._forward, self._layout) as launch:
            yield from self._stream(batches, launch)

    def _stream(self, batches: Iterable[Batch], launch: Launch) -> Iterator[tuple[int, Tensor]]:
        for batch in batches:
            if not len(batch):
                continue
            views = batch.views_on(self._device).flatten(0, 1)
            self._videos.extend(_Video(index, batch.views.shape[1]) for index in batch.indices.tolist())
            if self._waiting and self._waiting[0].shape[1:] != views.shape[1:]:
                self._launch(launch)  # frames of another size cannot be in the same chunk
            size = self._layout.size(views.shape[1:])
            for part in self._parts(views, size):
                self._waiting.append(part)
                if self._count == size:
                    self._launch(launch)
                    yield from self._read(keep=self._layout.ahead)
        if self._waiting:
            self._launch(launch)
        yield from self._read(keep=0)

    @property
    def _count(self) -> int:
        return sum(map(len, self._waiting))

    def _parts(self, views: Tensor, size: int) -> Iterator[Tensor]:
        """Pieces that fill the chunk that waits, and then one after the other."""
        while len(views):
            part = views[: size - self._count]
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
