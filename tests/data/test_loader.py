"""Samples and batches, from videos that can be read and from some that cannot."""

import ctypes
import gc
import os
import signal
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iwin.data.annotations import Sample
from iwin.data.bad_videos import BadVideo, BadVideos
from iwin.data.batches import EpochBatches, ShardBatches
from iwin.data.datasets import ClipReader, Item, Key, VideoDataset, collate
from iwin.data.loader import BatchLoader
from iwin.data.sampling import FrameSampler
from iwin.errors import DataError, VideoError
from iwin.transforms.geometry import CenterCrop, Compose, RandomCrop, Transform
from tests.prepare.files import write_in_part
from tests.videos import numbered_frames, read_number, write_video

BRIGHT = 200
"""The frame number of the videos that the transforms of these tests stumble over."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Nine videos; those numbered 7 and 8 show frame BRIGHT."""
    folder = tmp_path_factory.mktemp("videos")
    usual, bright = numbered_frames(30), numbered_frames(30, first=BRIGHT)
    return [Sample(str(write_video(folder / f"{n}.mp4", bright if n > 6 else usual)), (n,)) for n in range(9)]


def dataset(samples: list[Sample], *steps: Transform, seed: int = 0) -> VideoDataset:
    sampler = FrameSampler(clip_len=4, frame_interval=2, num_clips=1)
    reader = ClipReader(sampler, Compose((RandomCrop(48), *steps)), seed=seed)
    return VideoDataset(samples, reader)


def batches_of(loader: BatchLoader) -> list[tuple[Tensor, Tensor, Tensor]]:
    return [(batch.views, batch.targets, batch.indices) for batch in loader]


def assert_equal(left: list[Any], right: list[Any]) -> None:
    assert len(left) == len(right)
    for tensors, others in zip(left, right, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(tensors, others, strict=True))


# ------------------------------------------------------------------------------------------- samples


def test_a_damaged_picture_is_no_sample(tmp_path: Path) -> None:
    damaged = Sample(str(write_in_part(tmp_path / "a.mp4")), (0,))
    reader = ClipReader(FrameSampler(clip_len=40, test_mode=True), Compose(()))
    found = reader((Key(0, 0), damaged))
    assert isinstance(found, BadVideo)
    assert "damaged" in found.reason


def test_a_sample_depends_on_seed_and_key_alone(videos: list[Sample]) -> None:
    keys = [Key(0, 2), Key(1, 2), Key(0, 2, draw=1), Key(0, 2, attempt=1)]
    views = [dataset(videos, seed=1)[key].views for key in keys]
    assert torch.equal(views[0], dataset(videos, seed=1)[keys[0]].views)
    others = [*views[1:], dataset(videos, seed=2)[keys[0]].views]
    assert not any(torch.equal(views[0], other) for other in others)


def test_clips_hold_the_sampled_frames(videos: list[Sample]) -> None:
    sampler = FrameSampler(clip_len=4, frame_interval=3, num_clips=2, test_mode=True)
    views = VideoDataset(videos, ClipReader(sampler, Compose(())))[Key(0, 0)].views
    assert views.shape == (2, 4, 64, 96, 3)
    assert views.dtype == torch.uint8
    assert [[read_number(frame) for frame in clip] for clip in views] == sampler(30).tolist()


def test_a_bad_video_is_an_error_to_who_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"gone\.mp4"):
        dataset([Sample(str(tmp_path / "gone.mp4"), (0,))])[Key(0, 0)]


# ------------------------------------------------------------------------------------------- batches


def test_a_batch_stacks_items() -> None:
    views = torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8)
    batch = collate([Item(views, (3,), 7), Item(views, (4,), 9)])
    assert batch.views.shape == (2, 1, 2, 4, 4, 3)
    assert batch.targets.tolist() == [3, 4]
    assert batch.indices.tolist() == [7, 9]
    assert len(collate([])) == 0


def test_several_labels_become_ones_among_zeros() -> None:
    views = torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8)
    batch = collate([Item(views, (3, 0), 7), Item(views, (1,), 9)], num_classes=4)
    assert batch.targets.tolist() == [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]]
    assert collate([], num_classes=4).targets.shape == (0, 4)


def test_clips_of_different_shape_are_refused() -> None:
    items = [Item(torch.zeros(1, 2, side, 4, 3, dtype=torch.uint8), (0,), 0) for side in (4, 5)]
    with pytest.raises(DataError, match="end the pipeline with a crop"):
        collate(items)


def test_workers_give_the_same_batches(videos: list[Sample]) -> None:
    results = []
    for workers in (0, 2):
        batches = EpochBatches(len(videos), batch_size=2, seed=5)
        loader = BatchLoader(dataset(videos, seed=5), batches, num_workers=workers)
        epochs = []
        for epoch in range(2):  # the second epoch reaches workers that live on
            batches.begin(epoch)
            epochs += batches_of(loader)
        results.append(epochs)
        loader.close()
    assert_equal(*results)


def test_pixels_stay_uint8_until_the_device(videos: list[Sample]) -> None:
    reader = ClipReader(FrameSampler(clip_len=4, test_mode=True), Compose((CenterCrop((32, 32)),)))
    data = VideoDataset(videos, reader)
    (batch,) = BatchLoader(data, ShardBatches(len(videos), batch_size=9))
    assert batch.views.dtype == torch.uint8
    assert batch.views.is_contiguous()
    assert batch.views.shape == (9, 1, 4, 32, 32, 3)


def test_leaving_early_and_coming_back(videos: list[Sample]) -> None:
    loader = BatchLoader(dataset(videos), ShardBatches(len(videos), batch_size=1), num_workers=2)
    for batch in loader:
        assert batch.indices.tolist() == [0]
        break
    assert [batch.indices.item() for batch in loader] == list(range(9))
    loader.close()


def test_a_loader_that_is_forgotten_leaves_no_process(videos: list[Sample]) -> None:
    loader = BatchLoader(dataset(videos), ShardBatches(len(videos), batch_size=3), num_workers=1)
    assert len(batches_of(loader)) == 3
    assert loader._workers is not None
    process = loader._workers._workers[0].process
    gone = weakref.ref(loader)
    del loader
    gc.collect()
    assert gone() is None
    assert not process.is_alive()


def test_an_error_of_a_batch_is_raised_where_it_is_used(videos: list[Sample], tmp_path: Path) -> None:
    other = Sample(str(write_video(tmp_path / "small.mp4", numbered_frames(8, height=64, width=64))), (0,))
    data = VideoDataset([videos[0], other], ClipReader(FrameSampler(clip_len=4), Compose(())))
    loader = BatchLoader(data, ShardBatches(2, batch_size=2), num_workers=1)
    with pytest.raises(DataError, match="differ in shape"):
        list(loader)
    loader.close()


# ------------------------------------------------------------------------------------------- bad videos


@dataclass(frozen=True)
class Trouble:
    """A step that crashes or hangs at bright videos, as a decoder can at damaged ones."""

    kind: str

    def __call__(self, clip: Tensor, _rng: np.random.Generator, /) -> Tensor:
        if read_number(clip[0, 0]) > BRIGHT - 30:
            if self.kind == "hang":
                ctypes.PyDLL(None).pause()  # in C, without letting other threads run
            os.kill(os.getpid(), signal.SIGSEGV)
        return clip


def with_bad(videos: list[Sample], tmp_path: Path, *bad: int) -> list[Sample]:
    """The first seven videos, some of them spoiled."""
    samples = videos[:7]
    for number in bad:
        path = tmp_path / f"bad {number}.mp4"
        path.write_bytes(b"this is no video")
        samples[number] = Sample(str(path), (number,))
    return samples


@pytest.mark.parametrize("workers", [0, 2])
def test_in_testing_bad_videos_are_left_out(videos: list[Sample], tmp_path: Path, workers: int) -> None:
    samples = with_bad(videos, tmp_path, 0, 3)
    loader = BatchLoader(dataset(samples), ShardBatches(7, batch_size=1), num_workers=workers)
    assert [batch.indices.tolist() for batch in loader] == [[], [1], [2], [], [4], [5], [6]]
    assert sorted(Path(video.path).name for video in loader.bad) == ["bad 0.mp4", "bad 3.mp4"]
    assert all(video.path in video.reason for video in loader.bad)
    assert len(loader.bad.take_new()) == 2
    assert len(batches_of(loader)) == 7
    assert loader.bad.take_new() == [], "a video is told of once"
    loader.close()


def test_in_training_bad_videos_are_replaced_in_the_same_way_by_all(videos: list[Sample], tmp_path: Path) -> None:
    """Whether a bad video is known before, and by how many processes it is met, changes nothing."""
    samples = with_bad(videos, tmp_path, 1, 4)
    results = []
    for workers, known in ((0, []), (2, []), (0, [1, 4]), (1, [4])):
        batches = EpochBatches(7, batch_size=3, seed=2)
        bad = BadVideos(7)
        bad.learn([BadVideo(samples[number].path, "known") for number in known])
        loader = BatchLoader(dataset(samples, seed=2), batches, bad=bad, training=True, num_workers=workers)
        results.append(batches_of(loader))
        loader.close()
        assert {Path(video.path).name for video in loader.bad} == {"bad 1.mp4", "bad 4.mp4"}
    for others in results[1:]:
        assert_equal(results[0], others)
    shown = [index for _, _, indices in results[0] for index in indices.tolist()]
    assert len(shown) == 7
    assert not {1, 4} & set(shown)
    labels = [label for _, labels, _ in results[0] for label in labels.tolist()]
    assert labels == shown


def test_a_batch_of_training_is_not_empty(videos: list[Sample], tmp_path: Path) -> None:
    samples = with_bad(videos, tmp_path, 1, 4)
    bad = BadVideos(7, policy="skip")
    loader = BatchLoader(dataset(samples), EpochBatches(7, batch_size=1, seed=2), bad=bad, training=True)
    assert [len(batch) for batch in loader] == [1] * 7
    loader = BatchLoader(dataset(samples), EpochBatches(7, batch_size=7, seed=2), bad=bad, training=True)
    assert [len(batch) for batch in loader] == [5]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_ends_where_nothing_can_be_read(videos: list[Sample], tmp_path: Path, workers: int) -> None:
    samples = with_bad(videos, tmp_path, *range(7))
    loader = BatchLoader(dataset(samples), EpochBatches(7, batch_size=3), training=True, num_workers=workers)
    with pytest.raises(DataError, match=r"20 videos in a row could not be read; 7 of 7 .*\n.*bad \d\.mp4"):
        list(loader)
    loader.close()


def test_a_video_that_a_transform_cannot_take_is_a_bad_one(videos: list[Sample], tmp_path: Path) -> None:
    narrow = Sample(str(write_video(tmp_path / "narrow.mp4", numbered_frames(8, height=32, width=96))), (0,))
    loader = BatchLoader(dataset([narrow, videos[0]]), ShardBatches(2, batch_size=2))
    assert [batch.indices.tolist() for batch in loader] == [[1]]
    [video] = loader.bad
    assert "narrow.mp4: a crop of 48x48" in video.reason


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "reason"), [("crash", "died (SIGSEGV)"), ("hang", "nothing came for")])
def test_a_decoder_that_crashes_or_hangs_costs_its_video_alone(videos: list[Sample], kind: str, reason: str) -> None:
    batches = EpochBatches(len(videos), batch_size=2, seed=5)
    data = dataset(videos, Trouble(kind), seed=5)
    loader = BatchLoader(data, batches, training=True, num_workers=2, time_limit=0.5)
    first = batches_of(loader)
    assert sum(map(len, (indices for _, _, indices in first))) == 9
    assert [Path(video.path).name for video in sorted(loader.bad, key=lambda video: video.path)] == ["7.mp4", "8.mp4"]
    assert all(reason in video.reason for video in loader.bad)
    known = BadVideos(len(videos))
    known.learn(loader.bad)
    again = BatchLoader(dataset(videos, seed=5), batches, bad=known, training=True)
    assert_equal(first, batches_of(again))
    loader.close()


def test_a_video_that_is_spoiled_midway_does_not_end_the_iteration(videos: list[Sample], tmp_path: Path) -> None:
    copies = [Sample(str(tmp_path / f"{n}.mp4"), (n,)) for n in range(7)]
    for copy, video in zip(copies, videos, strict=False):
        Path(copy.path).write_bytes(Path(video.path).read_bytes())
    batches = EpochBatches(7, batch_size=2, seed=1)
    loader = BatchLoader(dataset(copies), batches, training=True, num_workers=2)
    shown: list[int] = []
    for epoch in range(3):
        batches.begin(epoch)
        for batch in loader:
            shown += batch.indices.tolist()
        content = Path(copies[epoch].path).read_bytes()
        Path(copies[epoch].path).write_bytes(content[:200])
    assert len(shown) == 21
    assert {Path(video.path).name for video in loader.bad} == {"0.mp4", "1.mp4"}
    loader.close()
