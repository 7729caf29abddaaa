"""Batches in order, from decoder processes that may hang, crash or meet videos that cannot be read."""

import contextlib
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from iwin.data.annotations import Sample
from iwin.data.bad_videos import BadVideo, BadVideos
from iwin.data.batches import EpochBatches, ShardBatches
from iwin.data.datasets import Batch, ClipReader, Item, Key, VideoDataset, collate
from iwin.data.workers import Lost, Workers
from iwin.errors import DataError

TRIES = 20
"""Videos that are tried for one place in a batch before the run ends: by then something is wrong with all of them."""

_STREAM = 0x726573  # keeps the choice of replacements apart from other random numbers of the same seed and key


class BatchLoader:
    """Batches of a dataset, one after the other; its decoder processes live as long as it does.

    A video that cannot be read, that takes too long or that costs processes their lives is remembered in `bad`, not
    tried again, and replaced or left out as the policy says. What replaces it follows from the sample's key alone.

    Args:
        dataset: the clips.
        batches: which of them, in which order.
        bad: where bad videos are remembered, and the policy for them; by default a split's own.
        training: whether bad videos can be replaced; a batch is then never empty.
        num_workers: decoder processes. 0 reads in this process, where nothing can be done about a decoder that hangs
            or crashes.
        time_limit: seconds that the clips of a video may take.
        pin_memory: as in `collate`.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        batches: EpochBatches | ShardBatches,
        *,
        bad: BadVideos | None = None,
        training: bool = False,
        num_workers: int = 0,
        time_limit: float = 60.0,
        pin_memory: bool = False,
    ) -> None:
        self.dataset, self.batches, self.num_workers = dataset, batches, num_workers
        self.bad = BadVideos(len(dataset)) if bad is None else bad
        self._replaces = training and self.bad.policy != "skip"
        self._training, self._time_limit, self._pin_memory = training, time_limit, pin_memory
        self._workers: Workers[tuple[Key, Sample], Item | BadVideo] | None = None

    def __len__(self) -> int:
        """Batches of an iteration from the beginning."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches; with decoder processes, a thread makes them while the last one is used.

        Raises:
            DataError: if nothing can be read any more, or the clips of a batch differ in shape.
        """
        if not self.num_workers:
            yield from self._read(_Here(self.dataset.reader), ahead=0, left=lambda: False)
            return
        workers = self._workers
        if workers is None:
            workers = Workers(self.dataset.reader, count=self.num_workers, time_limit=self._time_limit)
            self._workers = workers
            weakref.finalize(self, workers.close)
        ahead = 2 * (self.num_workers + self.batches.batch_size)
        background = _Background(lambda left: self._read(workers, ahead=ahead, left=left))
        finished = False
        try:
            yield from background
            finished = True
        finally:
            background.leave()
            if not finished:  # they are at work for batches that nobody wants any more
                self.close()

    def close(self) -> None:
        """End the decoder processes; the next iteration starts new ones."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _read(self, readers: "_Readers", *, ahead: int, left: Callable[[], bool]) -> Iterator[Batch]:
        """Batches in order, of samples that come in any order.

        Args:
            readers: what reads the samples.
            ahead: samples that may be asked for before those of the batches before theirs have come.
            left: whether nobody wants more.
        """
        reading = _Reading(self, readers)
        batches = iter(self.batches)
        waiting: deque[list[_Place]] = deque()
        more = True
        while True:
            while more and (not waiting or sum(map(len, waiting)) < ahead):
                keys = next(batches, None)
                more = keys is not None
                if keys is not None:
                    waiting.append([reading.begin(key) for key in keys])
            if not waiting:
                return
            places = waiting[0]
            while not all(place.settled for place in places):
                reading.proceed()
                if left():
                    return
            items = [place.item for place in places if place.item is not None]
            if self._training and not items:
                reading.ask(places[0], replace=True)
                continue
            waiting.popleft()
            yield collate(items, num_classes=self.dataset.num_classes, pin_memory=self._pin_memory)

    def _readable(self, key: Key, *, replace: bool) -> Key | None:
        """The key itself, or if its video is a bad one that of another, or None where it is to be left out."""
        samples = self.dataset.samples
        while samples[key.video].path in self.bad:
            if not replace:
                return None
            if key.attempt == TRIES:
                raise DataError(f"{TRIES} videos in a row could not be read; {self.bad.complaint()}")
            rng = np.random.default_rng([self.dataset.reader.seed, *key, _STREAM])
            key = Key(key.epoch, int(rng.integers(len(samples))), key.draw, key.attempt + 1)
        return key


@dataclass
class _Place:
    """A place in a batch; settled once it has its item, or is to have none."""

    key: Key
    item: Item | None = None
    settled: bool = False


class _Readers(Protocol):
    """What reads samples: `Workers`, or this process."""

    def submit(self, number: int, task: tuple[Key, Sample], /) -> None: ...

    def receive(self) -> Sequence[tuple[int, Item | BadVideo | Lost]]: ...


class _Here:
    """Reads samples in this process, one after the other."""

    def __init__(self, reader: ClipReader) -> None:
        self._reader = reader
        self._tasks: deque[tuple[int, tuple[Key, Sample]]] = deque()

    def submit(self, number: int, task: tuple[Key, Sample], /) -> None:
        self._tasks.append((number, task))

    def receive(self) -> list[tuple[int, Item | BadVideo | Lost]]:
        number, task = self._tasks.popleft()
        return [(number, self._reader(task))]


class _Reading:
    """The samples that are being read, and the places that wait for them."""

    def __init__(self, loader: BatchLoader, readers: _Readers) -> None:
        self._loader, self._readers = loader, readers
        self._places: dict[int, _Place] = {}
        self._asked = 0

    def begin(self, key: Key) -> _Place:
        """Have a sample read."""
        place = _Place(key)
        self.ask(place, replace=self._loader._replaces)
        return place

    def ask(self, place: _Place, *, replace: bool) -> None:
        """Have a sample read for a place, or settle it without."""
        key = self._loader._readable(place.key, replace=replace)
        place.settled = key is None
        if key is not None:
            place.key = key
            self._places[self._asked] = place
            self._readers.submit(self._asked, (key, self._loader.dataset.samples[key.video]))
            self._asked += 1

    def proceed(self) -> None:
        """Take in what has been read."""
        for number, result in self._readers.receive():
            place = self._places.pop(number)
            if isinstance(result, Item):
                place.item, place.settled = result, True
                continue
            path = self._loader.dataset.samples[place.key.video].path
            reason = f"{path}: {result.reason}" if isinstance(result, Lost) else result.reason
            self._loader.bad.add(BadVideo(path, reason))
            self.ask(place, replace=self._loader._replaces)


class _Background:
    """An iterator's items, made by a thread, one ahead.

    Args:
        make: makes the iterator; it is given a function that tells whether nobody wants more, upon which it ends.
    """

    def __init__(self, make: Callable[[Callable[[], bool]], Iterator[Batch]]) -> None:
        self._left = threading.Event()
        self._ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._fill, args=(make(self._left.is_set),), daemon=True)
        self._thread.start()

    def _fill(self, batches: Iterator[Batch]) -> None:
        try:
            for batch in batches:
                self._ready.put(batch)
                if self._left.is_set():
                    return
            self._ready.put(None)
        except BaseException as error:  # raised again where the batches are used
            self._ready.put(error)

    def __iter__(self) -> Iterator[Batch]:
        while (batch := self._ready.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield batch

    def leave(self) -> None:
        """End the thread."""
        self._left.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._ready.get_nowait()  # the thread may be waiting for room
            self._thread.join(0.05)
