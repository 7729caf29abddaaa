"""A plan and its rest give what the transform gives, by the same random numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from iwin.data.decode import open_video
from iwin.errors import DataError
from iwin.transforms.augment import RandomErasing
from iwin.transforms.bilinear import Cutout
from iwin.transforms.geometry import (
    Box,
    CenterCrop,
    Compose,
    Flip,
    MultiScaleCrop,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    TenCrop,
    ThreeCrop,
    Transform,
)
from iwin.transforms.plan import WHOLE, FrameSteps, Framing, Scaling, plan_clip
from tests.videos import numbered_frames, write_video

PIPELINES: dict[str, tuple[Transform, ...]] = {
    "nothing": (),
    "training": (Resize(short_side=64), RandomResizedCrop(), Resize(size=(48, 48)), Flip()),
    "training, other size": (Resize(short_side=80), RandomResizedCrop(), Resize(size=(48, 48)), Flip()),
    "validation": (Resize(short_side=64), CenterCrop((48, 48))),
    "validation, other size": (Resize(short_side=56), CenterCrop((48, 48))),
    "random crop": (Resize(fit=(64, 80)), RandomCrop(40), Flip(), RandomErasing(probability=1.0)),
    "multi-scale crop": (MultiScaleCrop(size=(48, 48), scales=(1.0, 0.7)), Resize(size=(48, 48)), Flip()),
    "three crops": (Resize(short_side=48), ThreeCrop((48, 48))),
    "ten crops": (CenterCrop((60, 61)), TenCrop((48, 48))),
    "crop in crop": (RandomCrop(61), CenterCrop((41, 33))),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", numbered_frames(12))


def clip_of(path: Path, transform: Compose, *, seed: int, scaling: Scaling = "exact") -> torch.Tensor:
    """The clip by a plan; all of it."""
    rng = np.random.default_rng(seed)
    with open_video(path) as video:
        plan = plan_clip(transform, (video.height, video.width), rng, scaling=scaling)
        frames = video.get_frames(range(0, 12, 3), plan.framing)
    return plan.rest(frames[None], rng)


def whole_clip(path: Path) -> torch.Tensor:
    with open_video(path) as video:
        return video.get_frames(range(0, 12, 3))[None]


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("much", [0, 2**30], ids=["each picture", "all at once"])
@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "PyTorch"])
def test_exact_plans_change_nothing(
    name: str, much: int, kernel: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iwin.data.pyav._MUCH", much)
    if not kernel:
        monkeypatch.setattr("iwin.transforms.plan.takes", lambda _cutout: False)
    transform, whole = Compose(PIPELINES[name]), whole_clip(path)
    for seed in range(8):
        planned = clip_of(path, transform, seed=seed)
        assert torch.equal(planned, transform(whole, np.random.default_rng(seed))), seed


def test_what_needs_no_pixels_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwin.transforms.plan.takes", lambda _cutout: False)
    rng = np.random.default_rng(0)
    plan = plan_clip(Compose(PIPELINES["training"]), (64, 96), rng)
    assert plan.framing.box is not None  # frames have the resize's size: the crop can be read by itself
    assert plan.framing.steps == FrameSteps(((48, 48),))
    assert plan.rest.transforms == (Flip(),)
    plan = plan_clip(Compose(PIPELINES["validation, other size"]), (64, 96), rng)
    assert plan == (Framing(steps=FrameSteps(((56, 84), Box(4, 18, 48, 48)))), Compose(()))
    assert plan_clip(Flip(), (64, 96), rng) == (WHOLE, Compose((Flip(),)))


def test_of_a_crop_behind_a_resize_no_more_is_read_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwin.transforms.plan.takes", lambda _cutout: True)
    plan = plan_clip(Compose(PIPELINES["validation, other size"]), (64, 96), np.random.default_rng(0))
    cutout = Cutout((64, 96), (56, 84), Box(4, 18, 48, 48))
    assert plan == (Framing(cutout.source, steps=FrameSteps((cutout,))), Compose(()))
    assert plan.framing.box is not None
    assert plan.framing.box.width < 60


@pytest.mark.parametrize("scaling", ["crop_first", "swscale"])
@pytest.mark.parametrize("name", PIPELINES)
def test_scaling_once_shows_the_same_part(scaling: Scaling, name: str, path: Path) -> None:
    transform, whole = Compose(PIPELINES[name]), whole_clip(path)
    for seed in range(4):
        planned = clip_of(path, transform, seed=seed, scaling=scaling)
        exact = transform(whole, np.random.default_rng(seed))
        assert planned.shape == exact.shape
        # The picture's blocks are 24 x 32 pixels, 20 or 230: another part would differ by far more.
        assert (planned.float() - exact.float()).abs().mean() < 14


def test_a_crop_behind_a_resize_is_taken_first() -> None:
    transform = Compose((Resize(short_side=50), CenterCrop((40, 40)), Resize(size=(20, 20))))
    rng = np.random.default_rng(0)
    assert plan_clip(transform, (100, 200), rng, scaling="crop_first") == (
        Framing(Box(10, 60, 80, 80), steps=FrameSteps(((20, 20),))),
        Compose(()),
    )
    assert plan_clip(transform, (100, 200), rng, scaling="swscale") == (
        Framing(Box(10, 60, 80, 80), size=(20, 20)),
        Compose(()),
    )


def test_a_box_has_a_pixel_at_least() -> None:
    transform = Compose((Resize(short_side=300), CenterCrop((1, 1))))
    plan = plan_clip(transform, (3, 3), np.random.default_rng(0), scaling="crop_first")
    assert plan.framing.box is not None
    assert plan.framing.box[2:] == (1, 1)


def test_a_crop_that_does_not_fit_is_refused_before_anything_is_read() -> None:
    with pytest.raises(DataError, match="does not fit into frames of 64x96"):
        plan_clip(CenterCrop((65, 20)), (64, 96), np.random.default_rng(0))
