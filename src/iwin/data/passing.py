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

import mmap
import os
import pickle
import socket
import struct
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMBER = struct.Struct("<Q")

_NO_SHEET = 2**64 - 1


class Alive:
    """What is received when the other side has nothing to say but that it is at work."""


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
        self._sheets: list[_Sheet] = []
        self._free: list[int] = []

    def send(self, result: Any) -> None:
        """Pass a result on; what pickles can be sent, and tensors and arrays are copied just once."""
        buffers: list[pickle.PickleBuffer] = []
        head = BytesIO()
        _Pickler(head, protocol=5, buffer_callback=buffers.append).dump(result)
        parts = [head.getbuffer(), *(buffer.raw() for buffer in buffers)]
        table = b"".join(map(_NUMBER.pack, [len(parts), *(part.nbytes for part in parts)]))
        number, is_new = self._sheet_of(len(table) + sum(part.nbytes for part in parts))
        sheet = self._sheets[number]
        sheet.write([memoryview(table), *parts])
        # The number and the descriptor go in one message: half of it cannot arrive.
        socket.send_fds(self._to, [_NUMBER.pack(number)], [sheet.descriptor] if is_new else [])

    def say_alive(self) -> None:
        """Let the other side know that work goes on; as often as one likes, it takes no memory."""
        self._to.sendall(_NUMBER.pack(_NO_SHEET))

    def reclaim(self, numbers: Iterable[int]) -> None:
        """Use these sheets again: the other side has released them."""
        self._free += numbers

    def close(self) -> None:
        """Let go of the sheets; the other side keeps what it has."""
        for sheet in self._sheets:
            os.close(sheet.descriptor)
        self._sheets, self._free = [], []

    def _sheet_of(self, size: int) -> tuple[int, bool]:
        """A free sheet of so many bytes or more, and whether the other side has yet to map it."""
        if not self._free:
            self._sheets.append(_Sheet())
            self._free.append(len(self._sheets) - 1)
        number = self._free.pop()  # the one released last, which is likeliest to be in a cache
        return number, self._sheets[number].grow(size)


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
            EOFError: if there will be none: the other side is gone.
        """
        head, descriptors, _, _ = socket.recv_fds(self._from, _NUMBER.size, 1)
        if not head:
            raise EOFError
        (number,) = _NUMBER.unpack(head)
        if number == _NO_SHEET:
            return Alive()
        for descriptor in descriptors:
            self._sheets[number] = mmap.mmap(descriptor, 0)
            os.close(descriptor)
        # What is unpickled holds on to this array, not to the mapping, so its end tells that the sheet is free.
        sheet: Any = np.frombuffer(self._sheets[number], dtype=np.uint8)
        weakref.finalize(sheet, self._released.append, number).atexit = False
        story, buffers = _parts(memoryview(sheet))
        return pickle.loads(story, buffers=buffers)  # noqa: S301 - from our own process

    def released(self) -> list[int]:
        """Sheets of which nothing is in use any more, since this was last asked."""
        return [self._released.popleft() for _ in range(len(self._released))]


class _Sheet:
    """A piece of memory that another process can map."""

    def __init__(self) -> None:
        self.descriptor = _memory_file()
        self._content: mmap.mmap | None = None

    def grow(self, size: int) -> bool:
        """Make it large enough, whatever is in it; returns whether it was not."""
        if self._content is not None and len(self._content) >= size:
            return False
        os.ftruncate(self.descriptor, size)
        self._content = mmap.mmap(self.descriptor, size)
        return True

    def write(self, parts: Iterable[memoryview]) -> None:
        """Fill it, from its beginning on."""
        assert self._content is not None
        with memoryview(self._content) as content:
            start = 0
            for part in parts:
                content[start : start + part.nbytes] = part
                start += part.nbytes


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("results")
    with tempfile.TemporaryFile() as file:  # outside Linux an unnamed file on disk does the same
        return os.dup(file.fileno())


def _parts(content: memoryview) -> tuple[memoryview, list[memoryview]]:
    """The pickle and its buffers; in front of them stand their count and their sizes in bytes."""
    count, *_ = _NUMBER.unpack_from(content)
    start = _NUMBER.size * (count + 1)
    parts = []
    for place in range(count):
        (size,) = _NUMBER.unpack_from(content, _NUMBER.size * (place + 1))
        parts.append(content[start : start + size])
        start += size
    return parts[0], parts[1:]
