import math
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iwin.errors import DataError
from iwin.transforms.geometry import (
    CenterCrop,
    Compose,
    Flip,
    MultiScaleCrop,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    TenCrop,
    ThreeCrop,
    first_fitting_size,
    resize,
    transform_with_label,
)
from tests.goldens import generator, load_json, load_npz, rule_input
from tests.sources import Golden, over_goldens
from tests.transforms.opencv_reference import resize_linear

RNG = np.random.default_rng(0)
"""For transforms that draw nothing."""


def coordinates(height: int, width: int) -> Tensor:
    """A clip of one view and one frame whose pixels are their own place, so that a crop shows its box.

    Places go beyond 255: their high bits share the third channel.
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x % 256, y % 256, x // 256 * 16 + y // 256], dim=-1)[None, None].to(torch.uint8)


def boxes(crops: Tensor) -> list[list[int]]:
    """[left, top, right, bottom] of each view of crops from `coordinates`."""

    def place(pixel: Tensor) -> tuple[int, int]:
        x, y, high = pixel.tolist()
        return x + high // 16 * 256, y + high % 16 * 256

    corners = ((place(view[0, 0, 0]), place(view[0, -1, -1])) for view in crops)
    return [[left, top, right + 1, bottom + 1] for (left, top), (right, bottom) in corners]


def hw(text: str) -> tuple[int, int]:
    """The two numbers in "224x298" or "(224, 256)"; a single one stands for both."""
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    return numbers[0], numbers[-1]


# ---------------------------------------------------------------------------------------------- resize


def resize_of(case: dict[str, Any]) -> Resize | None:
    """Our Resize for upstream's arguments (width, height); None for what ours cannot say."""
    scale, keep_ratio = case["scale"], case["keep_ratio"]
    if not isinstance(scale, list):
        return None
    if -1 in scale:
        return Resize(short_side=max(scale)) if keep_ratio else None
    return Resize(fit=(scale[1], scale[0])) if keep_ratio else Resize(size=(scale[1], scale[0]))


@over_goldens
def test_resize_gives_the_original_sizes(golden: Golden) -> None:
    cases = load_json(golden("data/resize.json"))
    checked = 0
    for case in cases["cases"]:
        transform = resize_of(case)
        if transform is None:
            continue
        for size, expected in zip(cases["in_hw"], case["out_h_w_scalefactor_w_h"], strict=True):
            if 0 in expected[:2]:
                with pytest.raises(DataError, match="too narrow"):
                    transform.output_size(*size)
            else:
                assert list(transform.output_size(*size)) == expected[:2], (transform, size)
            checked += 1
    assert checked == 8 * 20


def test_half_a_pixel_rounds_up() -> None:
    assert Resize(short_side=3).output_size(2, 3) == (3, 5)


@over_goldens
def test_resized_pixels_are_within_one_grey_level_of_the_original(golden: Golden) -> None:
    arrays = load_npz(golden("data/resize_pixels.npz"))
    for case in sorted({key.split("|")[0] for key in arrays}):
        source, expected = arrays[f"{case}|in"], arrays[f"{case}|out"]
        height, width = expected.shape[:2]
        np.testing.assert_array_equal(resize_linear(source, height, width), expected, err_msg="the reference")
        actual = resize(torch.from_numpy(source)[None, None], (height, width))[0, 0].numpy()
        difference = np.abs(actual.astype(int) - expected)
        assert difference.max() <= 1, case
        assert np.mean(difference) < 0.3, case


@pytest.mark.parametrize(
    ("size", "new_size"),
    [
        ((256, 340), (224, 224)),
        ((240, 320), (256, 341)),
        ((540, 960), (224, 398)),
        ((60, 80), (256, 341)),
        ((17, 33), (224, 224)),
        ((1, 1), (8, 8)),
        ((113, 97), (224, 224)),
        ((500, 40), (31, 211)),
    ],
)
@pytest.mark.parametrize("content", ["noise", "smooth"])
def test_any_size_is_within_one_grey_level_of_opencv(
    size: tuple[int, int], new_size: tuple[int, int], content: str
) -> None:
    frame = rule_input(f"image/{size[0]}x{size[1]}x3")
    if content == "smooth":
        wave = torch.linspace(0, 7, size[0])[:, None, None] + torch.linspace(0, 5, size[1])[:, None] + torch.arange(3)
        frame = (127.5 + 127.5 * torch.sin(wave)).to(torch.uint8)
    actual = resize(frame[None, None], new_size)[0, 0].numpy().astype(int)
    difference = np.abs(actual - resize_linear(frame.numpy(), *new_size))
    assert difference.max() <= 1
    assert difference.mean() < 0.3


def test_resize_treats_every_frame_alike_and_keeps_channels_last() -> None:
    clip = rule_input("video/6x40x60").unflatten(0, (2, 3))
    resized = Resize(short_side=20)(clip[:, :, 5:, 7:], RNG)
    assert resized.shape == (2, 3, 20, 30, 3)
    assert resized.is_contiguous()
    for view in range(2):
        for frame in range(3):
            alone = clip[view, frame, 5:, 7:].contiguous()
            torch.testing.assert_close(resized[view, frame], resize(alone[None, None], (20, 30))[0, 0], rtol=0, atol=0)


def test_resize_to_the_same_size_is_no_work() -> None:
    clip = rule_input("video/2x20x30")[None]
    assert Resize(short_side=20)(clip, RNG) is clip
    assert Resize(size=(20, 30))(clip, RNG) is clip


@pytest.mark.parametrize("settings", [{}, {"short_side": 3, "size": (2, 2)}])
def test_resize_takes_one_target(settings: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="exactly one"):
        Resize(**settings)


# ----------------------------------------------------------------------------------------------- crops


@over_goldens
def test_three_crops_take_the_original_boxes(golden: Golden) -> None:
    for crop, cases in load_json(golden("data/crops.json"))["ThreeCrop"].items():
        width, height = hw(crop)
        for size, case in cases.items():
            frames = coordinates(*hw(size))
            # Upstream cuts boxes with negative corners out of frames that are too small; that is an error here.
            if case["result"] == "error" or np.min(case["value"]) < 0:
                with pytest.raises(DataError, match="Resize"):
                    ThreeCrop((height, width))(frames, RNG)
            else:
                assert boxes(ThreeCrop((height, width))(frames, RNG)) == case["value"], (crop, size)


@over_goldens
def test_center_crop_takes_the_original_box(golden: Golden) -> None:
    for crop, cases in load_json(golden("data/crops.json"))["CenterCrop"].items():
        width, height = hw(crop)
        for size, case in cases.items():
            frames, box = coordinates(*hw(size)), case["value"]["crop_bbox"]
            if min(box) < 0:
                with pytest.raises(DataError, match="does not fit"):
                    CenterCrop((height, width))(frames, RNG)
            else:
                assert boxes(CenterCrop((height, width))(frames, RNG)) == [box], (crop, size)


@over_goldens
def test_views_are_ordered_by_crop_then_clip(golden: Golden) -> None:
    frame_numbers = load_json(golden("data/format_flip.json"))["NCTHW"]["frame_number_by_view"]
    # 3 clips of 4 frames; a pixel is its clip and frame number, plus 12 in the right third
    clip = torch.arange(12, dtype=torch.uint8).reshape(3, 4, 1, 1, 1).expand(3, 4, 2, 6, 3).clone()
    clip[:, :, :, 4:] += 12
    crops = ThreeCrop((2, 2))(clip, RNG)
    assert crops[:6, :, 0, 0, 0].tolist() == frame_numbers
    assert torch.equal(crops[6:], crops[:3]), "the middle comes last"


@over_goldens
def test_ten_crops_take_the_original_boxes(golden: Golden) -> None:
    for crop, cases in load_json(golden("data/crops.json"))["TenCrop"].items():
        width, height = hw(crop)
        for size, case in cases.items():
            views = TenCrop((height, width))(coordinates(*hw(size)), RNG)
            views[1::2] = views[1::2].flip(-2)  # mirror the mirrored ones back
            assert boxes(views) == case["value"], (crop, size)


@over_goldens
def test_ten_crops_are_ordered_as_the_original_ones(golden: Golden) -> None:
    # the golden's frames are 4x8 with pixel = frame number + 10 * x; here they are the views
    clip = (torch.arange(2)[:, None, None] + 10 * torch.arange(8)).to(torch.uint8).expand(2, 4, 8)
    views = TenCrop((4, 4))(clip[:, None, :, :, None].expand(-1, 1, -1, -1, 3), RNG)
    assert views[:, 0, 0, 0, 0].tolist() == load_json(golden("data/crops.json"))["TenCrop_order"]["first_pixel"]


def multi_scale_crop(case: dict[str, Any], **changes: Any) -> MultiScaleCrop:
    """Ours for upstream's arguments."""
    side, scales = case["args"]["input_size"], tuple(case["args"]["scales"])
    places = case["args"].get("num_fixed_crops", 5)
    return MultiScaleCrop(size=(side, side), scales=scales, fixed_places=places, **changes)


@over_goldens
def test_multi_scale_crop_chooses_among_the_original_sizes(golden: Golden) -> None:
    for case in load_json(golden("data/crops.json"))["MultiScaleCrop"]:
        target = case["args"]["input_size"]
        snapped = [
            [target if abs(side - target) < 3 else side for side in size] for size in case["candidate_sizes_w_h"]
        ]
        assert [[width, height] for height, width in multi_scale_crop(case).sizes(*case["img_hw"])] == snapped


@over_goldens
def test_multi_scale_crop_puts_boxes_where_the_original_does(golden: Golden) -> None:
    for number, case in enumerate(load_json(golden("data/crops.json"))["MultiScaleCrop"]):
        left, top, right, bottom = case["bbox_when_first_chosen"]
        frames, rng, transform = coordinates(*case["img_hw"]), generator(f"places {number}"), multi_scale_crop(case)
        drawn = [boxes(transform(frames, rng))[0] for _ in range(4000)]
        first_size = [box[:2] for box in drawn if (box[2] - box[0], box[3] - box[1]) == (right - left, bottom - top)]
        expected = case["candidate_offsets_for_first"]
        for place in np.unique(expected, axis=0).tolist():
            share = expected.count(place) / len(expected)
            assert first_size.count(place) / len(first_size) == pytest.approx(share, abs=0.07)
        assert all(place in expected for place in first_size)


def test_multi_scale_crop_anywhere() -> None:
    frames, rng = coordinates(40, 60), generator("anywhere")
    transform = MultiScaleCrop(size=(20, 20), scales=(1.0, 0.5), random_place=True, max_scale_gap=0)
    drawn = np.array([boxes(transform(frames, rng))[0] for _ in range(3000)])
    small = drawn[drawn[:, 2] - drawn[:, 0] == 20]
    assert small.min(axis=0).tolist() == [0, 0, 20, 20]
    assert small.max(axis=0).tolist() == [40, 20, 60, 40]
    assert len(small) / 3000 == pytest.approx(0.5, abs=0.05)


def test_a_side_is_not_stretched_beyond_the_frame() -> None:
    transform = MultiScaleCrop(size=(224, 224))
    assert transform.sizes(223, 300) == [(223, 224)]
    assert transform.sizes(226, 300) == [(224, 224)]
    assert transform.sizes(227, 300) == [(227, 227)]


def test_multi_scale_crops_that_cannot_be() -> None:
    with pytest.raises(DataError, match="at least one scale"):
        MultiScaleCrop(size=(224, 224), scales=())
    with pytest.raises(DataError, match="does not fit"):
        MultiScaleCrop(size=(224, 224), scales=(1.2,))(coordinates(100, 100), RNG)


@over_goldens
def test_random_crop_stays_within_the_original_range(golden: Golden) -> None:
    rng = generator("random crop")
    for size, last_box in load_json(golden("data/crops.json"))["RandomCrop_max_box"]["boxes"].items():
        frames = coordinates(*hw(size))
        drawn = np.array([boxes(RandomCrop(224)(frames, rng))[0] for _ in range(1500)])
        assert drawn.min(axis=0).tolist() == [0, 0, 224, 224]
        assert drawn.max(axis=0).tolist() == last_box


def test_random_crop_that_does_not_fit() -> None:
    with pytest.raises(DataError, match=r"224x224 .* does not fit into frames of 200x300 .*Resize"):
        RandomCrop(224)(coordinates(200, 300), RNG)


def test_crops_share_memory() -> None:
    clip = rule_input("video/2x20x30")[None]
    for transform in (CenterCrop((10, 12)), RandomCrop(8), RandomResizedCrop(), MultiScaleCrop(size=(8, 8))):
        assert transform(clip, RNG).untyped_storage().data_ptr() == clip.untyped_storage().data_ptr()


# ----------------------------------------------------------------------------------- random resized crop


@over_goldens
def test_box_from_the_original_candidates_is_the_original_box(golden: Golden) -> None:
    """Upstream's own draws (numpy's and Python's old generators), our choice among them."""
    case = load_json(golden("data/random_resized_crop.json"))
    low, high = case["aspect_ratio_range"]
    smallest, largest = case["area_range"]
    for seeded in case["seeded"]:
        height, width = seeded["img_hw"]
        numpy_draws = np.random.RandomState(seeded["seed"])
        python_draws = random.Random(seeded["seed"])
        aspect_ratios = np.exp(numpy_draws.uniform(math.log(low), math.log(high), size=case["max_attempts"]))
        areas = numpy_draws.uniform(smallest, largest, size=case["max_attempts"]) * (height * width)
        size = first_fitting_size(areas, aspect_ratios, height=height, width=width)
        if size is None:
            [box] = boxes(CenterCrop((min(height, width),) * 2)(coordinates(height, width), RNG))
        else:
            left = python_draws.randint(0, width - size[1])
            top = python_draws.randint(0, height - size[0])
            box = [left, top, left + size[1], top + size[0]]
        assert box == seeded["bbox"]


@over_goldens
@pytest.mark.parametrize("size", ["256x340", "340x256", "256x256", "256x455", "100x1000"])
def test_boxes_are_distributed_as_in_the_original(golden: Golden, size: str) -> None:
    expected = load_json(golden("data/random_resized_crop.json"))["statistics"][size]
    height, width = hw(size)
    frames, rng = coordinates(height, width), generator(f"boxes {size}")
    left, top, right, bottom = np.array([boxes(RandomResizedCrop()(frames, rng))[0] for _ in range(4000)]).T
    w, h = right - left, bottom - top
    area, aspect = w * h / (height * width), w / h
    for values, name in ((area, "area_fraction_quantiles"), (aspect, "aspect_quantiles")):
        for share, quantile in ((float(key), value) for key, value in expected[name].items() if key not in "01"):
            assert np.mean(values < quantile - 1e-9) - 0.03 <= share <= np.mean(values <= quantile + 1e-9) + 0.03
    # No quantile holds for the extremes: the bounds hold for the sides before they were rounded to whole pixels.
    assert ((w - 0.5) / (h + 0.5)).max() <= 4 / 3
    assert ((w + 0.5) / (h - 0.5)).min() >= 3 / 4
    assert ((w + 0.5) * (h + 0.5)).min() >= 0.08 * height * width
    assert area.mean() == pytest.approx(expected["area_fraction_mean"], abs=0.015)
    assert np.log(aspect).mean() == pytest.approx(expected["log_aspect_mean"], abs=0.015)
    assert ((left + right) / 2 / width).mean() == pytest.approx(0.5, abs=0.015)
    assert ((top + bottom) / 2 / height).mean() == pytest.approx(0.5, abs=0.015)
    side = min(height, width)
    centred = (left == (width - side) // 2) & (top == (height - side) // 2) & (w == side)
    assert np.mean(centred & (h == side)) == pytest.approx(expected["fallback_center_square_fraction"], abs=0.03)


@over_goldens
def test_central_square_where_no_box_fits(golden: Golden) -> None:
    fallback = load_json(golden("data/random_resized_crop.json"))["fallback"]
    transform = RandomResizedCrop(area_range=(1.0, 1.0))
    assert boxes(transform(coordinates(*fallback["img_hw"]), generator("none fits"))) == [fallback["bbox"]]


@pytest.mark.parametrize(
    "ranges", [{"area_range": (0.0, 1.0)}, {"area_range": (0.5, 1.1)}, {"aspect_ratio_range": (2.0, 1.0)}]
)
def test_ranges_that_cannot_be(ranges: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="must rise"):
        RandomResizedCrop(**ranges)


# ------------------------------------------------------------------------------------------------ flip


@over_goldens
def test_flip_mirrors_as_the_original(golden: Golden) -> None:
    case = load_json(golden("data/format_flip.json"))["Flip"]
    clip = torch.tensor(case["input"], dtype=torch.uint8)[None, None]
    flipped = Flip(probability=1.0)(clip, RNG)
    assert flipped[0, 0].tolist() == case["horizontal"]
    assert torch.equal(Flip(probability=1.0, direction="vertical")(clip, RNG), clip.flip(2))


def test_flip_draws_once_for_the_clip_whatever_the_probability() -> None:
    clip = rule_input("video/4x6x8").unflatten(0, (2, 2))
    rng = generator("flips")
    outcomes = [Flip(probability=0.3)(clip, rng) for _ in range(1000)]
    flipped = [outcome is not clip for outcome in outcomes]
    assert np.mean(flipped) == pytest.approx(0.3, abs=0.05)
    assert all(torch.equal(o, clip.flip(-2)) for o, f in zip(outcomes, flipped, strict=True) if f)
    for probability in (0.0, 1.0):
        rng = np.random.default_rng(3)
        Flip(probability=probability)(clip, rng)
        assert rng.random() == np.random.default_rng(3).random(2)[1]


def test_a_flipped_clip_tells_its_class() -> None:
    clip, rng = rule_input("video/2x6x8")[None], generator("labels")
    flip = Flip(label_map=((0, 1), (1, 0), (3, 4)))
    for label, mirrored in ((0, 1), (1, 0), (2, 2), (3, 4), (4, 4)):
        outcomes = [flip.with_label(clip, label, rng) for _ in range(20)]
        assert {(result is clip, new) for result, new in outcomes} == {(True, label), (False, mirrored)}


def test_labels_go_through_all_transforms_and_change_no_draw() -> None:
    clip = rule_input("video/2x20x30")[None]
    always = Flip(probability=1.0, label_map=((5, 6), (6, 7)))
    steps = Compose((RandomResizedCrop(), always, RandomCrop(3), always))
    expected = steps(clip, generator("steps"))
    result, label = transform_with_label(steps, clip, 5, generator("steps"))
    assert torch.equal(result, expected)
    assert label == 7
    assert transform_with_label(RandomCrop(3), clip, 5, generator("steps"))[1] == 5


def test_compose_applies_in_order_and_draws_from_one_generator() -> None:
    clip = rule_input("video/3x40x50")[None]
    steps = (RandomResizedCrop(), Resize(size=(16, 16)), Flip())
    expected, rng = clip, np.random.default_rng(1)
    for step in steps:
        expected = step(expected, rng)
    assert torch.equal(Compose(steps)(clip, np.random.default_rng(1)), expected)
    assert expected.shape == (1, 3, 16, 16, 3)
