"""What the device does is what the steps themselves do."""

from pathlib import Path

import numpy as np
import pytest
import torch

from iwin.data.annotations import Sample
from iwin.data.datasets import ClipReader, Key, VideoDataset, collate
from iwin.data.sampling import FrameSampler
from iwin.transforms.augment import RandomErasing
from iwin.transforms.device import carry_out, decide, split_steps
from iwin.transforms.geometry import Compose, Flip, RandomCrop, Resize, Transform
from tests.videos import numbered_frames, write_video

FLIP, DOWN = Flip(probability=0.7, label_map=((0, 1), (1, 0))), Flip(direction="vertical")
NOISE, BOXES = RandomErasing(probability=0.8, fill="noise"), RandomErasing(fill="color", count_range=(1, 3))


@pytest.mark.parametrize("steps", [(FLIP,), (DOWN, NOISE), (NOISE, FLIP, BOXES), ()])
@pytest.mark.parametrize("seed", range(8))
def test_the_result_is_the_same_bit_for_bit(steps: tuple[Transform, ...], seed: int) -> None:
    clip = torch.randint(256, (2, 3, 24, 36, 3), dtype=torch.uint8)
    pipeline = Compose((RandomCrop(16), *steps))
    expected, expected_label = pipeline.with_label(clip, 1, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    split = split_steps(pipeline)
    assert split.device == steps
    views, label = split.host.with_label(clip, 1, rng)
    edits, label = decide(split.device, size=(16, 16), label=label, rng=rng)
    views = views.clone()
    carry_out(views, edits)
    assert torch.equal(views, expected)
    assert label == expected_label


def test_only_the_last_steps_wait() -> None:
    split = split_steps(Compose((FLIP, NOISE, Resize(short_side=8), DOWN)))
    assert split.host.transforms == (FLIP, NOISE, Resize(short_side=8))
    assert split.device == (DOWN,)


def test_a_batch_is_finished_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(12))
    steps = Compose((RandomCrop(32), Flip(probability=1.0), NOISE))
    data = VideoDataset([Sample(str(path), (0,))], ClipReader(FrameSampler(clip_len=4), steps, seed=3))
    batch = collate([data[Key(epoch, 0)] for epoch in range(4)])
    unfinished = batch.views.clone()
    finished = batch.views_on(torch.device("cpu")).clone()
    assert not torch.equal(finished, unfinished)
    assert torch.equal(batch.views_on(torch.device("cpu")), finished)
