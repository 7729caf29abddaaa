"""Batches in order: which process reads which sample, and when."""

import multiprocessing
from collections.abc import Iterator
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
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate,
        multiprocessing_context=context,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        # A loader draws a seed for its workers whenever it is iterated; from the global generator, that would make a
        # resumed epoch differ from an uninterrupted one.
        generator=torch.Generator(),
    )
