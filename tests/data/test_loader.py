from collections import Counter
from pathlib import Path

import pytest
import torch

from iwin.data.annotations import Sample
from iwin.data.datasets import Item, VideoDataset, collate
from iwin.data.loader import EpochBatches, ShardBatches, make_loader
from iwin.data.sampling import FrameSampler
from iwin.errors import DataError
from iwin.transforms.geometry import CenterCrop, Compose, RandomCrop
from tests.videos import numbered_frames, read_number, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("videos")
    frames = numbered_frames(30)
    return [Sample(str(write_video(folder / f"{n}.mp4", frames)), (n,)) for n in range(5)]


def dataset(samples: list[Sample], **settings: object) -> VideoDataset:
    return VideoDataset(
        samples,
        sampler=FrameSampler(clip_len=4, frame_interval=2, num_clips=1),
        transform=Compose((RandomCrop(48),)),
        **settings,  # type: ignore[arg-type]
    )


# ------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_shows_every_sample_to_some_process(world: int) -> None:
    shards = [EpochBatches(10, batch_size=3, seed=1, rank=rank, world=world) for rank in range(world)]
    lengths = {len(list(shard)) for shard in shards}
    assert lengths == {len(shards[0])}
    counts = Counter(index for shard in shards for batch in shard for _, index in batch)
    assert set(counts) == set(range(10))
    assert counts.total() == shards[0].samples * world
    assert max(counts.values()) <= 2


def test_epochs_differ_and_repeat_by_their_number() -> None:
    batches = EpochBatches(20, batch_size=4, seed=3)
    first = list(batches)
    batches.begin(1)
    second = list(batches)
    assert [index for batch in first for _, index in batch] != [index for batch in second for _, index in batch]
    assert all(epoch == 1 for batch in second for epoch, _ in batch)
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
    seen = [index for shard in shards for batch in shard for _, index in batch]
    assert sorted(seen) == list(range(size))
    assert all(len(list(shard)) == len(shard) for shard in shards)


# ------------------------------------------------------------------------------------------- samples


def test_a_sample_depends_on_seed_epoch_and_index_alone(videos: list[Sample]) -> None:
    first = dataset(videos, seed=1)[0, 2]
    again = dataset(videos, seed=1)[0, 2]
    assert first.views is not None
    assert again.views is not None
    assert torch.equal(first.views, again.views)
    others = [dataset(videos, seed=1)[1, 2], dataset(videos, seed=2)[0, 2]]
    assert all(other.views is not None and not torch.equal(first.views, other.views) for other in others)


def test_clips_hold_the_sampled_frames(videos: list[Sample]) -> None:
    sampler = FrameSampler(clip_len=4, frame_interval=3, num_clips=2, test_mode=True)
    data = VideoDataset(videos, sampler=sampler, transform=Compose(()))
    views = data[0, 0].views
    assert views is not None
    assert views.shape == (2, 4, 64, 96, 3)
    assert views.dtype == torch.uint8
    assert [[read_number(frame) for frame in clip] for clip in views] == sampler(30).tolist()


def test_a_bad_video_is_replaced_in_training_and_counted_in_testing(videos: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"this is no video")
    samples = [Sample(str(tmp_path / "bad.mp4"), (0,)), *videos]
    item = dataset(samples, replace_bad=True)[0, 0]
    assert item.views is not None
    assert item.index != 0
    assert item.label == samples[item.index].label
    assert [bad.index for bad in item.bad] == [0]
    assert "bad.mp4" in item.bad[0].reason
    missing = dataset(samples)[0, 0]
    assert missing.views is None
    assert [bad.index for bad in missing.bad] == [0]


def test_training_stops_where_no_video_decodes(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"this is no video")
    with pytest.raises(DataError, match="in a row could not be decoded"):
        dataset([Sample(str(tmp_path / "bad.mp4"), (0,))], replace_bad=True)[0, 0]


# ------------------------------------------------------------------------------------------- batches


def test_a_batch_stacks_what_decoded() -> None:
    views = torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8)
    batch = collate([Item(views, 3, 7), Item(None, 1, 8), Item(views, 4, 9)])
    assert batch.views.shape == (2, 1, 2, 4, 4, 3)
    assert batch.labels.tolist() == [3, 4]
    assert batch.indices.tolist() == [7, 9]
    assert len(collate([Item(None, 1, 8)])) == 0


def test_clips_of_different_shape_are_refused() -> None:
    items = [Item(torch.zeros(1, 2, side, 4, 3, dtype=torch.uint8), 0, 0) for side in (4, 5)]
    with pytest.raises(DataError, match="end the pipeline with a crop"):
        collate(items)


def test_workers_give_the_same_batches(videos: list[Sample]) -> None:
    results = []
    for workers in (0, 2):
        batches = EpochBatches(len(videos), batch_size=2, seed=5)
        loader = make_loader(dataset(videos, seed=5), batches, num_workers=workers)
        epochs = []
        for epoch in range(2):  # the second epoch reaches workers that live on
            batches.begin(epoch)
            epochs.append([(batch.views, batch.labels) for batch in loader])
        results.append(epochs)
    for alone, shared in zip(*results, strict=True):
        for (views, labels), (other_views, other_labels) in zip(alone, shared, strict=True):
            assert torch.equal(views, other_views)
            assert torch.equal(labels, other_labels)


def test_pixels_stay_uint8_until_the_device(videos: list[Sample]) -> None:
    data = VideoDataset(
        videos, sampler=FrameSampler(clip_len=4, test_mode=True), transform=Compose((CenterCrop((32, 32)),))
    )
    (batch,) = make_loader(data, ShardBatches(len(videos), batch_size=5), num_workers=0)
    assert batch.views.dtype == torch.uint8
    assert batch.views.is_contiguous()
    assert batch.views.shape == (5, 1, 4, 32, 32, 3)
