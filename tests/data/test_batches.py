from collections import Counter

import numpy as np
import pytest

from iwin.data.balance import balanced, occurrences
from iwin.data.batches import EpochBatches, ShardBatches
from iwin.data.datasets import Key
from iwin.errors import DataError

# ------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_shows_every_sample_to_some_process(world: int) -> None:
    shards = [EpochBatches(10, batch_size=3, seed=1, rank=rank, world=world) for rank in range(world)]
    lengths = {len(list(shard)) for shard in shards}
    assert lengths == {len(shards[0])}
    counts = Counter(key.video for shard in shards for batch in shard for key in batch)
    assert set(counts) == set(range(10))
    assert counts.total() == shards[0].samples * world
    assert max(counts.values()) <= 2


def test_epochs_differ_and_repeat_by_their_number() -> None:
    batches = EpochBatches(20, batch_size=4, seed=3)
    first = list(batches)
    batches.begin(1)
    second = list(batches)
    assert videos(first) != videos(second)
    assert all(key.epoch == 1 for batch in second for key in batch)
    batches.begin(0)
    assert list(batches) == first


def test_an_epoch_continues_from_any_batch() -> None:
    batches = EpochBatches(20, batch_size=6, seed=3)
    whole = list(batches)
    batches.begin(0, batch=2)
    assert list(batches) == whole[2:]
    assert len(batches) == 4


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("size", [3, 8, 11])
def test_an_evaluation_shows_every_sample_exactly_once(size: int, world: int) -> None:
    shards = [ShardBatches(size, batch_size=2, rank=rank, world=world) for rank in range(world)]
    seen = [key.video for shard in shards for batch in shard for key in batch]
    assert sorted(seen) == list(range(size))
    assert all(len(list(shard)) == len(shard) for shard in shards)


# ------------------------------------------------------------------------------------------- classes


LABELS = [0] * 1 + [2] * 9 + [3] * 90
"""Class 1 has no video."""


def videos(batches: list[list[Key]]) -> list[int]:
    return [key.video for batch in batches for key in batch]


@pytest.mark.parametrize(
    ("power", "shares"), [(0.0, [1 / 3, 0, 1 / 3, 1 / 3]), (0.5, [1, 0, 3, 90**0.5]), (1.0, [0.01, 0, 0.09, 0.9])]
)
def test_classes_get_their_share_of_an_epoch(power: float, shares: list[float]) -> None:
    expected = 100 * np.array(shares) / sum(shares)
    counts = np.array(
        [
            np.bincount(np.array(LABELS)[balanced(LABELS, power=power, rng=np.random.default_rng(epoch))], minlength=4)
            for epoch in range(200)
        ]
    )
    assert (counts.sum(axis=1) == 100).all()
    assert (np.abs(counts - expected) < 1).all()
    assert counts.mean(axis=0) == pytest.approx(expected, abs=0.1)


def test_the_videos_of_a_class_take_turns() -> None:
    order = balanced(LABELS, power=0.0, rng=np.random.default_rng(0))
    counts = Counter(order.tolist())
    assert counts[0] in (33, 34)
    assert {counts[video] for video in range(1, 10)} <= {3, 4}
    assert max(counts[video] for video in range(10, 100)) == 1


def test_occurrences_count_up() -> None:
    assert occurrences(np.array([5, 2, 5, 5, 2, 7])).tolist() == [0, 0, 1, 2, 1, 0]
    assert occurrences(np.array([], dtype=np.int64)).tolist() == []


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_a_balanced_epoch(world: int) -> None:
    alone = EpochBatches(100, batch_size=7, seed=4, labels=LABELS, power=0.5)
    shards = [
        EpochBatches(100, batch_size=7, seed=4, rank=rank, world=world, labels=LABELS, power=0.5)
        for rank in range(world)
    ]
    shared = Counter(key for shard in shards for batch in shard for key in batch)
    whole = Counter(key for batch in alone for key in batch)
    assert len(whole) == 100, "a video that is drawn twice is not the same clip twice"
    assert shared.keys() >= whole.keys()
    assert len(shared) == shared.total() < 100 + world, "what fills up the epoch are clips of their own"
    assert len({len(list(shard)) for shard in shards}) == 1


# ------------------------------------------------------------------------------------------- repeats


@pytest.mark.parametrize("world", [1, 2])
def test_a_batch_holds_several_clips_of_its_videos(world: int) -> None:
    shards = [EpochBatches(10, batch_size=4, seed=1, rank=rank, world=world, repeats=2) for rank in range(world)]
    for shard in shards:
        for batch in shard:
            assert [key.video for key in batch[::2]] == [key.video for key in batch[1::2]]
            assert [key.draw % 2 for key in batch] == [0, 1] * (len(batch) // 2)
        assert sum(map(len, shard)) == shard.samples


def test_as_many_epochs_show_each_video_as_often() -> None:
    batches = EpochBatches(10, batch_size=2, seed=1, repeats=2)
    counts: Counter[int] = Counter()
    for epoch in range(2):
        batches.begin(epoch)
        assert sum(map(len, batches)) == 10
        counts.update(videos(list(batches)))
    assert counts == dict.fromkeys(range(10), 2)


@pytest.mark.parametrize("labels", [None, [0] * 3 + [1] * 4])
@pytest.mark.parametrize("world", [1, 2])
def test_no_clip_comes_twice_where_repeats_do_not_divide_the_videos(world: int, labels: list[int] | None) -> None:
    for epoch in range(3):
        keys = []
        for rank in range(world):
            batches = EpochBatches(7, batch_size=3, rank=rank, world=world, labels=labels, power=0.0, repeats=3)
            batches.begin(epoch)
            keys += [key for batch in batches for key in batch]
        assert len(set(keys)) == len(keys) >= 9


def test_clips_that_do_not_divide_a_batch_are_refused() -> None:
    with pytest.raises(DataError, match=r"3 clips of each video .* do not divide a batch of 4"):
        EpochBatches(10, batch_size=4, repeats=3)


def test_a_balanced_and_repeated_epoch_continues_from_any_batch() -> None:
    batches = EpochBatches(100, batch_size=6, seed=3, labels=LABELS, power=0.0, repeats=3)
    batches.begin(4)
    whole = list(batches)
    batches.begin(4, batch=5)
    assert list(batches) == whole[5:]
