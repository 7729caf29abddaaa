"""Which samples make which batch: the order of an epoch, each process's share of it, and where it goes on."""

from collections.abc import Iterator, Sequence

import numpy as np

from iwin.data.balance import balanced, occurrences
from iwin.data.datasets import Key
from iwin.errors import DataError


class EpochBatches:
    """The batches of one process for one training epoch after another.

    Every epoch is a fresh order that depends on (seed, epoch) alone; processes take turns in it, and it is padded from
    its beginning until all have the same number of samples, as DDP needs. An epoch has as many samples as there are
    videos.

    Args:
        size: videos in the dataset.
        batch_size: samples of a batch, of one process.
        seed: seed of the run.
        rank: this process.
        world: number of processes.
        labels: class of each video, to draw by class; None draws every video once an epoch.
        power: with `labels`, a class of n videos gets a share of the epoch proportional to n ** power (see `balanced`).
        repeats: clips of a video in a batch (repeated augmentation: Hoffer et al., arXiv 1901.09335). An epoch then
            shows that part of the videos, and as many epochs show each as often as without.

    Raises:
        DataError: if clips of a video do not fit into a batch evenly.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        labels: Sequence[int] | None = None,
        power: float = 1.0,
        repeats: int = 1,
    ) -> None:
        if batch_size % repeats:
            raise DataError(
                f"{repeats} clips of each video (data.train.repeats) do not divide a batch of {batch_size} that goes "
                "through the model at once; change data.videos_per_gpu"
            )
        self.size, self.batch_size, self.seed, self.rank, self.world = size, batch_size, seed, rank, world
        self.labels, self.power, self.repeats = labels, power, repeats
        self.epoch = 0
        self.start = 0

    @property
    def samples(self) -> int:
        """Samples of this process in an epoch."""
        return -(-self._drawn // self.world) * self.repeats

    @property
    def _drawn(self) -> int:
        """Videos of an epoch, of all processes."""
        return -(-self.size // self.repeats)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-self.samples // self.batch_size)

    def begin(self, epoch: int, *, batch: int = 0) -> None:
        """Make the next iteration give an epoch, from one of its batches on."""
        self.epoch, self.start = epoch, batch

    def __iter__(self) -> Iterator[list[Key]]:
        mine = self._keys()
        for batch in range(self.start, len(self)):
            yield mine[batch * self.batch_size : (batch + 1) * self.batch_size]

    def _keys(self) -> list[Key]:
        """This process's samples of the epoch, in order."""
        turn, part = divmod(self.epoch, self.repeats)
        rng = np.random.default_rng([self.seed, turn])
        order = rng.permutation(self.size) if self.labels is None else balanced(self.labels, power=self.power, rng=rng)
        places = np.resize(np.arange(self.size)[part :: self.repeats], self._drawn)
        order = order[np.resize(places, self.samples // self.repeats * self.world)]
        draws = occurrences(order)  # also of what fills up an epoch, so that no clip comes twice
        mine = slice(self.rank, None, self.world)
        return [
            Key(self.epoch, index, draw * self.repeats + copy)
            for index, draw in zip(order[mine].tolist(), draws[mine].tolist(), strict=True)
            for copy in range(self.repeats)
        ]


class ShardBatches:
    """The batches of one process for an evaluation: every sample exactly once over all processes, in order."""

    def __init__(self, size: int, *, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.indices = range(rank, size, world)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield [Key(0, index) for index in self.indices[start : start + self.batch_size]]
