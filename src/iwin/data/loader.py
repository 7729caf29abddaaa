"""Batches in order: which process reads which sample, and when."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import connection, forkserver
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from iwin.data.datasets import Batch, VideoDataset, collate

Key = tuple[int, int]
"""(epoch, index): what a dataset is asked for."""


class BatchLoader(Protocol):
    """Batches, one after the other."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...


class EpochBatches(Sampler[list[Key]]):
    """The batches of one process for one training epoch after another.

    Every epoch is a fresh permutation that depends on (seed, epoch) alone; processes take turns in it, and it is
    padded from its beginning until all have the same number of samples, as DDP needs.

    Args:
        size: samples in the dataset.
        batch_size: samples of a batch, of one process.
        seed: seed of the run.
        rank: this process.
        world: number of processes.
    """

    def __init__(self, size: int, *, batch_size: int, seed: int = 0, rank: int = 0, world: int = 1) -> None:
        self.size, self.batch_size, self.seed, self.rank, self.world = size, batch_size, seed, rank, world
        self.epoch = 0
        self.start = 0

    @property
    def samples(self) -> int:
        """Samples of this process in an epoch."""
        return -(-self.size // self.world)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-self.samples // self.batch_size)

    def begin(self, epoch: int, *, batch: int = 0) -> None:
        """Make the next iteration give an epoch, from one of its batches on."""
        self.epoch, self.start = epoch, batch

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        mine = np.resize(order, self.samples * self.world)[self.rank :: self.world].tolist()
        for batch in range(self.start, len(self)):
            yield [(self.epoch, index) for index in mine[batch * self.batch_size : (batch + 1) * self.batch_size]]


class ShardBatches(Sampler[list[Key]]):
    """The batches of one process for an evaluation: every sample exactly once over all processes, in order."""

    def __init__(self, size: int, *, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.indices = range(rank, size, world)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield [(0, index) for index in self.indices[start : start + self.batch_size]]


def make_loader(
    dataset: VideoDataset, batches: EpochBatches | ShardBatches, *, num_workers: int, pin_memory: bool = False
) -> BatchLoader:
    """A loader whose decoder processes live as long as it does.

    Workers come from a fork server that has imported this package and started no thread: forking the training process
    itself can deadlock in the threads of CUDA and FFmpeg, and spawning pays seconds of imports for every worker.
    """
    context = None
    if num_workers:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["iwin.data.datasets"])
        _start_fork_server()
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate,
        worker_init_fn=_begin_worker,
        multiprocessing_context=context,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        # A loader draws a seed for its workers whenever it is iterated; from the global generator, that would make a
        # resumed epoch differ from an uninterrupted one.
        generator=torch.Generator(),
    )


_STOPPING = (signal.SIGINT, signal.SIGTERM)


def _start_fork_server() -> None:
    """Start it deaf to Ctrl-C and SIGTERM.

    A terminal and torchrun send them to whole process groups. They ask the training process to finish its step and save
    its state, for which it still needs batches.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(_: int) -> None:
    """Keep a worker from signals that are not meant for it alone, and from outliving the process that it works for.

    PyTorch ends workers that hang with SIGTERM; and it looks after the fork server instead of that process, which the
    worker itself keeps alive.
    """
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
