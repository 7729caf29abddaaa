"""Results that travel through shared memory, inside one process."""

import gc
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iwin.data.passing import Alive, Ended, Inbox, Outbox
from iwin.errors import DataError


class Way:
    """Both sides."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.inbox, self.outbox = Inbox(ours), Outbox(theirs)

    def carry(self, result: Any) -> Any:
        self.outbox.reclaim(self.inbox.released())
        self.outbox.send(result)
        return self.inbox.receive()


@pytest.fixture
def way() -> Iterator[Way]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Way(ours, theirs)


@pytest.mark.parametrize("result", [None, "words", (1, {"a": [2.5]}), b"x" * 100_000])
def test_whatever_pickles_arrives(way: Way, result: Any) -> None:
    assert way.carry(result) == result


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
def test_tensors_arrive_as_they_are(way: Way, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    sent = torch.arange(24).to(dtype)[: int(np.prod(shape))].reshape(shape)
    found = way.carry({"views": sent, "turned": sent.transpose(0, -1) if shape else sent})
    assert torch.equal(found["views"], sent)
    assert found["views"].data_ptr() % 64 == 0 or not sent.numel()
    assert torch.equal(found["turned"], sent.transpose(0, -1) if shape else sent)


def test_a_result_in_use_stays_while_others_come(way: Way) -> None:
    first = way.carry(torch.full((1000,), 1))
    part = way.carry({"all": torch.full((1000,), 2)})["all"][10:20]  # the rest of it is let go
    first += 10
    for value in range(3, 30):
        assert torch.equal(way.carry(torch.full((1000,), value)), torch.full((1000,), value))
    assert torch.equal(first, torch.full((1000,), 11))
    assert torch.equal(part, torch.full((10,), 2))


def test_memory_is_used_again(way: Way) -> None:
    places = {way.carry(torch.zeros(5000)).data_ptr() for _ in range(10)}
    gc.collect()
    assert len(places) == 1
    kept = [way.carry(torch.zeros(5000)) for _ in range(3)]
    assert len({tensor.data_ptr() for tensor in kept} | places) == 3


def test_larger_results_find_room(way: Way) -> None:
    for size in (1, 10_000, 10, 1_000_000, 5):
        assert torch.equal(way.carry(torch.arange(size)), torch.arange(size))


def test_signs_of_life_take_no_memory(way: Way) -> None:
    for _ in range(5000):  # more than the socket takes: the rest is not said
        way.outbox.say_alive()
    assert isinstance(way.inbox.receive(), Alive)
    assert way.outbox._sheets == []


def test_too_few_open_files_are_told(way: Way) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 20, limits[1]))
    try:
        with pytest.raises((DataError, OSError), match=r"ulimit -n|Too many open files"):
            _ = [way.carry(torch.zeros(10)) for _ in range(100)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert torch.equal(way.carry(torch.ones(10)), torch.ones(10))


def test_nothing_yet_and_nothing_any_more(way: Way) -> None:
    with pytest.raises(BlockingIOError):
        way.inbox.receive()
    way.outbox.send("last")
    way.outbox._to.close()
    assert way.inbox.receive() == "last"
    with pytest.raises(Ended):
        way.inbox.receive()
