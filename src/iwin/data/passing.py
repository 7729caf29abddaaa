"""The way of a result from the process that made it: written once, into memory that both processes have mapped.

    # in the process that makes results         # in the one that uses them
    outbox = Outbox(theirs)                     inbox = Inbox(ours)
    outbox.send(result)                         result = inbox.receive()
    outbox.reclaim(numbers)                     numbers = inbox.released()

Each result lies in a sheet of memory. When nothing of it is in use any more, the sheet takes another one: its pages are
there already, in both processes, while new ones for each result would take several times as long as filling them. A
sheet is an unnamed file of which the other side gets the descriptor, so no result waits to be read, results outlive the
process that made them, and containers with a small /dev/shm do.
"""

import contextlib
import mmap
import os
import pickle
import socket
import struct
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iwin.errors import DataError

_NUMBER = struct.Struct("<Q")

_NO_SHEET = 2**64 - 1

_TOO_MANY = "clips in use need more open files than this process may have; raise `ulimit -n`, or use smaller batches"

_ALIGNMENT = 64
"""Bytes, as of PyTorch's own memory."""


class Alive:
    """What is received when the other side has nothing to say but that it is at work."""


class Ended(Exception):  # noqa: N818 (no mistake: the other side is gone)
    """There will be no more results."""


class _Pickler(pickle.Pickler):
    """Takes tensors for arrays, whose bytes pickle leaves where they are."""

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.contiguous().numpy(),)) if isinstance(value, Tensor) else NotImplemented


class Outbox:
    """The side that makes results.

    Args:
        to: one end of a pair of Unix stream sockets.
    """

    def __init__(self, to: socket.socket) -> None:
        self._to = to
        self._sheets: list[mmap.mmap] = []
        self._free: list[int] = []

    def send(self, result: Any) -> None:
        """Pass a result on; what pickles can be sent, and tensors and arrays are copied just once."""
        buffers: list[pickle.PickleBuffer] = []
        head = BytesIO()
        _Pickler(head, protocol=5, buffer_callback=buffers.append).dump(result)
        parts = [head.getbuffer(), *(buffer.raw() for buffer in buffers)]
        places = _places([part.nbytes for part in parts])
        number, descriptors = self._take(places[-1].stop)
        _write(self._sheets[number], parts, places)
        # The number and the descriptor go in one message: half of it cannot arrive.
        socket.send_fds(self._to, [_NUMBER.pack(number)], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def say_alive(self) -> None:
        """Let the other side know that work goes on; as often as one likes, it neither waits nor takes memory."""
        with contextlib.suppress(BlockingIOError):  # it has hundreds of signs of life to read
            self._to.send(_NUMBER.pack(_NO_SHEET), socket.MSG_DONTWAIT)

    def reclaim(self, numbers: Iterable[int]) -> None:
        """Use these sheets again: the other side has released them."""
        self._free += numbers

    def _take(self, size: int) -> tuple[int, list[int]]:
        """A free sheet of so many bytes or more, and its descriptor if the other side has yet to map it."""
        if not self._free:
            self._free.append(len(self._sheets))
        number = self._free.pop()  # the one released last, which is likeliest to be in a cache
        if number < len(self._sheets) and len(self._sheets[number]) >= size:
            return number, []
        descriptor = _memory_file()
        os.ftruncate(descriptor, size)
        self._sheets[number : number + 1] = [mmap.mmap(descriptor, size)]
        return number, [descriptor]


class Inbox:
    """The side that uses results.

    Args:
        source: the other end.
    """

    def __init__(self, source: socket.socket) -> None:
        self._from = source
        source.setblocking(False)
        self._sheets: dict[int, mmap.mmap] = {}
        self._released: deque[int] = deque()

    def receive(self) -> Any:
        """The next result, or `Alive`; its tensors and arrays lie in its sheet, which is theirs while one is in use.

        Raises:
            BlockingIOError: if there is none yet.
            Ended: if there will be none.
            DataError: if this process may not open more files.
        """
        try:
            head, descriptors, flags, _ = socket.recv_fds(self._from, _NUMBER.size, 1)
        except ConnectionError:
            raise Ended from None
        if not head:
            raise Ended
        (number,) = _NUMBER.unpack(head)
        if number == _NO_SHEET:
            return Alive()
        try:
            for descriptor in descriptors:
                self._sheets[number] = mmap.mmap(descriptor, 0)
                os.close(descriptor)
        except OSError as error:
            raise DataError(f"{_TOO_MANY} ({error.strerror})") from None
        if flags & socket.MSG_CTRUNC:  # the descriptor found no place
            raise DataError(_TOO_MANY)
        # What is unpickled holds on to this array, not to the mapping, so its end tells that the sheet is free.
        sheet: Any = np.frombuffer(self._sheets[number], dtype=np.uint8)
        weakref.finalize(sheet, self._released.append, number).atexit = False
        story, buffers = _parts(memoryview(sheet))
        return pickle.loads(story, buffers=buffers)  # noqa: S301 - from our own process

    def released(self) -> list[int]:
        """Sheets of which nothing is in use any more, since this was last asked."""
        return [self._released.popleft() for _ in range(len(self._released))]


def _write(sheet: mmap.mmap, parts: Sequence[memoryview], places: Sequence[slice]) -> None:
    """Fill a sheet with parts, before them their count and their sizes in bytes."""
    with memoryview(sheet) as content:
        struct.pack_into(f"<{len(parts) + 1}Q", content, 0, len(parts), *(part.nbytes for part in parts))
        for part, place in zip(parts, places, strict=True):
            content[place] = part


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("results")
    with tempfile.TemporaryFile() as file:  # outside Linux an unnamed file on disk does the same
        return os.dup(file.fileno())


def _parts(content: memoryview) -> tuple[memoryview, list[memoryview]]:
    """The pickle in a sheet, and its buffers."""
    (count,) = _NUMBER.unpack_from(content)
    story, *buffers = (content[place] for place in _places(struct.unpack_from(f"<{count}Q", content, _NUMBER.size)))
    return story, buffers


def _places(sizes: Sequence[int]) -> list[slice]:
    """Where parts of these sizes lie, behind their count and sizes; vector instructions want them aligned."""
    places = []
    end = _NUMBER.size * (len(sizes) + 1)
    for size in sizes:
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = start + size
        places.append(slice(start, end))
    return places
