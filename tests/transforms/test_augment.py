import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iwin.errors import DataError
from iwin.transforms.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_MAGNITUDE,
    OPERATIONS,
    RandAugment,
    RandomErasing,
    first_erasable_size,
    operate,
)
from iwin.transforms.normalize import normalize
from tests.goldens import generator, load_json, rule_input
from tests.sources import Golden, over_goldens

GREY = torch.tensor([124, 116, 104], dtype=torch.uint8)
"""The mean colour."""


def still_clip() -> Tensor:
    """Two views of three times the same frame, each view with a colour range of its own."""
    frames = rule_input("video/2x40x56") // torch.tensor([2, 3], dtype=torch.uint8).view(2, 1, 1, 1)
    return frames[:, None].expand(-1, 3, -1, -1, -1)


# ----------------------------------------------------------------------------------------- RandAugment


def torchvision_operations() -> dict[str, str]:
    """Our names of the operations, in torchvision's order -> torchvision's."""
    from torchvision.transforms import v2

    return dict(zip(OPERATIONS, v2.RandAugment._AUGMENTATION_SPACE, strict=True))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("magnitude", [0, 7, 30])
def test_operations_and_strengths_are_those_of_torchvision(operation: str, magnitude: int) -> None:
    from torchvision.transforms import v2

    name = torchvision_operations()[operation]
    assert name.lower() == operation.replace("_", "")
    clip = rule_input("video/4x40x56").unflatten(0, (2, 2))
    strengths, signed = v2.RandAugment._AUGMENTATION_SPACE[name]
    values = strengths(31, 40, 56)
    value = 0.0 if values is None else float(values[magnitude])
    theirs = v2.RandAugment(fill=list(IMAGENET_MEAN))
    for sign in (1, -1):
        expected = theirs._apply_image_or_video_transform(
            clip.movedim(-1, -3), name, sign * value if signed else value, theirs.interpolation, theirs._fill
        )
        actual = operate(clip, operation, strength=sign * magnitude / MAX_MAGNITUDE, fill=IMAGENET_MEAN)
        assert torch.equal(actual, expected.movedim(-3, -1)), sign


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("strength", [-1.0, 0.7])
def test_an_operation_is_the_same_for_all_frames(operation: str, strength: float) -> None:
    clip = still_clip()
    changed = operate(clip, operation, strength=strength, fill=IMAGENET_MEAN)
    assert changed.shape == clip.shape
    assert changed.dtype == torch.uint8
    assert torch.equal(changed, changed[:, :1].expand_as(changed))
    assert torch.equal(changed, clip) == (operation == "identity")
    assert operation == "identity" or changed.is_contiguous()


def test_what_comes_into_view_has_the_mean_colour() -> None:
    clip = still_clip()
    shifted = operate(clip, "translate_x", strength=1.0, fill=IMAGENET_MEAN)
    pixels = int(150 / 331 * 56)
    assert torch.equal(shifted[..., :pixels, :], GREY.expand(2, 3, 40, pixels, 3))
    assert torch.equal(shifted[..., pixels:, :], clip[..., :-pixels, :])


def test_no_strength_changes_nothing_and_full_strength_inverts_and_leaves_four_bits() -> None:
    clip = still_clip()
    for operation in set(OPERATIONS) - {"auto_contrast", "equalize"}:
        assert torch.equal(operate(clip, operation, strength=0.0, fill=IMAGENET_MEAN), clip), operation
    assert torch.equal(operate(clip, "solarize", strength=-1.0, fill=IMAGENET_MEAN), 255 - clip)
    assert torch.equal(operate(clip, "posterize", strength=-1.0, fill=IMAGENET_MEAN), clip & 0xF0)


def test_rand_augment_is_determined_by_the_generator_and_leaves_the_clip() -> None:
    clip = still_clip().contiguous()
    before = clip.clone()
    transform = RandAugment(num_ops=4, magnitude=7)
    results = [transform(clip, generator(name)) for name in ("a", "a", "b")]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(clip, before)
    assert torch.equal(results[0], results[0][:, :1].expand_as(clip))


def test_every_operation_is_drawn_as_often_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, float]] = []

    def note(clip: Tensor, name: str, *, strength: float, fill: Any) -> Tensor:
        assert fill == (1.0, 2.0, 3.0)
        drawn.append((name, strength))
        return clip

    monkeypatch.setattr("iwin.transforms.augment.operate", note)
    rng = generator("operations")
    for _ in range(1400):
        RandAugment(num_ops=4, magnitude=15, mean=(1.0, 2.0, 3.0))(torch.empty(0), rng)
    names, strengths = zip(*drawn, strict=True)
    for operation in OPERATIONS:
        assert names.count(operation) == pytest.approx(400, abs=75)
    assert set(strengths) == {-0.5, 0.5}
    assert np.mean(strengths) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("magnitude", [-1, 31])
def test_magnitudes_beyond_30_are_refused(magnitude: int) -> None:
    with pytest.raises(DataError, match=r"0 \.\. 30"):
        RandAugment(magnitude=magnitude)


# -------------------------------------------------------------------------------------- random erasing


def erased_boxes(before: Tensor, after: Tensor) -> Tensor:
    """Mask (V, T, H, W) of the pixels that differ."""
    return (before != after).any(-1)


@over_goldens
def test_boxes_from_the_original_draws_are_the_original_boxes(golden: Golden) -> None:
    """Python's generator as timm consults it; the frames of the golden are 60x80."""
    facts = load_json(golden("data/random_erasing.json"))
    height, width = 60, 80
    smallest, largest = facts["defaults"]["min_area"], facts["defaults"]["max_area"]
    log_aspect = math.log(facts["defaults"]["min_aspect"])
    for case in facts["draws"]:
        draws = random.Random(case["python_seed"])
        if draws.random() > case["probability"]:
            assert case["box_x1y1x2y2"] is None
            continue
        size = None
        while size is None:
            area = draws.uniform(smallest, largest) * height * width
            aspect_ratio = math.exp(draws.uniform(log_aspect, -log_aspect))
            size = first_erasable_size(np.array([area]), np.array([aspect_ratio]), height=height, width=width)
        top, left = draws.randint(0, height - size[0]), draws.randint(0, width - size[1])
        assert case["box_x1y1x2y2"] == [left, top, left + size[1], top + size[0]]


def test_a_box_is_smaller_than_the_frame() -> None:
    wide, tall = np.array([20 * 40.0]), np.array([0.5])
    assert first_erasable_size(wide, tall, height=21, width=41) == (20, 40)
    assert first_erasable_size(wide, tall, height=20, width=41) is None
    assert first_erasable_size(wide, tall, height=21, width=40) is None


def test_boxes_are_distributed_as_the_ranges_say() -> None:
    rng, clip = generator("boxes"), torch.zeros(1, 1, 100, 120, 3, dtype=torch.uint8)
    boxes = []
    for _ in range(1000):
        mask = RandomErasing(probability=1.0)(clip, rng)[0, 0, :, :, 0].numpy() > 0
        y, x = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        assert mask.sum() == len(y) * len(x), "one whole box"
        boxes.append((len(y), len(x), y[0], x[0]))
    height, width, top, left = np.array(boxes).T
    area, aspect = height * width / (100 * 120), height / width
    assert area.min() == pytest.approx(0.02, abs=0.004)
    assert area.max() == pytest.approx(1 / 3, abs=0.01)
    assert np.median(area) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    assert 0.25 < aspect.min() < aspect.max() < 4
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.06)
    assert (top / (100 - height)).mean() == pytest.approx(0.5, abs=0.04)
    assert (left / (120 - width)).mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("fill", ["mean", "color", "noise"])
def test_the_same_pixels_are_written_into_all_frames(fill: Any) -> None:
    clip = still_clip()
    before = clip.clone()
    erased = RandomErasing(probability=1.0, fill=fill)(clip, generator("erasing"))
    mask = erased_boxes(clip, erased)
    assert mask.any()
    assert torch.equal(clip, before)
    assert torch.equal(mask, mask[:1, :1].expand_as(mask))
    assert torch.equal(erased, erased[:, :1].expand_as(erased))
    assert torch.equal(erased[0][mask[0]], erased[1][mask[1]])
    written = len(erased[0, 0][mask[0, 0]].unique(dim=0))
    assert (written > 20) if fill == "noise" else (written == 1)


def test_the_mean_is_zero_after_normalisation_within_rounding() -> None:
    """The original writes 0 after it."""
    clip = still_clip()
    erased = RandomErasing(probability=1.0)(clip, generator("mean"))
    values = normalize(erased, mean=IMAGENET_MEAN, std=IMAGENET_STD).movedim(-4, -1)[erased_boxes(clip, erased)]
    assert values.abs().max() <= 0.5 / min(IMAGENET_STD)


def test_noise_is_standard_normal_after_normalisation_but_for_what_no_pixel_can_be() -> None:
    clip = torch.zeros(1, 1, 200, 200, 3, dtype=torch.uint8)
    transform = RandomErasing(probability=1.0, fill="noise", area_range=(0.8, 0.8), aspect_ratio_range=(1.0, 1.0))
    values = normalize(transform(clip, generator("noise")), mean=IMAGENET_MEAN, std=IMAGENET_STD)[0, :, 0]
    values = values[:, values[0] > values[0].min()]  # of the box, where red is not cut
    assert values.shape[1] > 30000
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        lowest, highest = -mean / std, (255 - mean) / std
        drawn = values[channel]
        assert drawn.min() >= lowest - 1e-5
        assert drawn.max() <= highest + 1e-5
        assert torch.median(drawn).item() == pytest.approx(0, abs=0.06)
        assert (drawn.abs() < 1).float().mean().item() == pytest.approx(0.683, abs=0.02)


def test_several_boxes_share_the_area() -> None:
    rng, clip = generator("several"), torch.zeros(1, 1, 100, 100, 3, dtype=torch.uint8)
    transform = RandomErasing(probability=1.0, area_range=(0.3, 0.3), count_range=(1, 4))
    shares = [erased_boxes(clip, transform(clip, rng)).float().mean().item() for _ in range(200)]
    assert max(shares) == pytest.approx(0.3, abs=0.01)
    assert 0.1 < min(shares) < 0.25, "boxes that overlap"


def test_erasing_happens_as_often_as_it_should() -> None:
    clip, rng = still_clip(), generator("how often")
    results = [RandomErasing(probability=0.25)(clip, rng) for _ in range(1000)]
    assert np.mean([result is not clip for result in results]) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    "settings",
    [{"area_range": (0.1, 1.5)}, {"aspect_ratio_range": (3.0, 1.0)}, {"count_range": (0, 1)}, {"count_range": (3, 2)}],
)
def test_ranges_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="must rise"):
        RandomErasing(**settings)
