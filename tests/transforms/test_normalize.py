import numpy as np
import pytest
import torch

from iwin.transforms.normalize import normalize
from tests.goldens import load_json, load_npz, rule_input
from tests.sources import Golden, over_goldens

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


@over_goldens
@pytest.mark.parametrize(("name", "bgr"), [("out", False), ("out_to_bgr_true", True)])
def test_an_image_becomes_the_original_numbers(golden: Golden, name: str, bgr: bool) -> None:
    constants, arrays = load_json(golden("data/normalize.json")), load_npz(golden("data/normalize.npz"))
    clips = torch.from_numpy(arrays["img"])[None, None]
    actual = normalize(clips, mean=tuple(constants["mean"]), std=tuple(constants["std"]), bgr=bgr)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual[0, :, 0].permute(1, 2, 0), arrays[name], rtol=0, atol=1e-6)


@over_goldens
def test_every_grey_level_becomes_the_original_number(golden: Golden) -> None:
    expected = load_npz(golden("data/normalize.npz"))["lut_0_255"]
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 1, 256, 1).expand(-1, -1, -1, -1, 3)
    actual = normalize(levels, mean=MEAN, std=STD)
    np.testing.assert_allclose(actual.reshape(3, 256).T, expected, rtol=0, atol=1e-6)


def test_the_result_is_a_view_of_channels_last_memory_and_the_pixels_stay() -> None:
    clips = rule_input("video/8x6x10").unflatten(0, (2, 4))
    before = clips.clone()
    result = normalize(clips, mean=MEAN, std=STD)
    assert result.shape == (2, 3, 4, 6, 10)
    assert result.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(clips, before)


def test_views_of_several_videos() -> None:
    clips = rule_input("video/24x6x10").reshape(2, 3, 4, 6, 10, 3)
    result = normalize(clips, mean=MEAN, std=STD)
    assert result.shape == (2, 3, 3, 4, 6, 10)
    assert torch.equal(result[1], normalize(clips[1], mean=MEAN, std=STD))


def test_half_precision_is_rounded_at_the_end() -> None:
    clips = rule_input("video/4x6x10")[None]
    exact = normalize(clips, mean=MEAN, std=STD)
    assert torch.equal(normalize(clips, mean=MEAN, std=STD, dtype=torch.bfloat16), exact.to(torch.bfloat16))


@pytest.mark.gpu
def test_a_gpu_gives_the_same_numbers() -> None:
    clips = rule_input("video/4x20x30")[None]
    on_gpu = normalize(clips.cuda(), mean=MEAN, std=STD)
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), normalize(clips, mean=MEAN, std=STD), rtol=0, atol=1e-6)
