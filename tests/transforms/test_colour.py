import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from iwin.transforms.colour import ColorJitter
from tests.goldens import generator, rule_input

OFF = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def still_clip() -> Tensor:
    """Two views of three times the same frame."""
    return rule_input("video/2x24x32")[:, None].expand(-1, 3, -1, -1, -1)


def test_all_frames_of_a_view_get_the_same_jitter() -> None:
    clip = still_clip()
    jittered = ColorJitter()(clip, generator("jitter"))
    assert jittered.shape == clip.shape
    assert jittered.dtype == torch.uint8
    assert jittered.is_contiguous()
    assert not torch.equal(jittered, clip)
    assert torch.equal(jittered, jittered[:, :1].expand_as(jittered))


def test_the_same_generator_gives_the_same_jitter_and_leaves_the_clip() -> None:
    clip = rule_input("video/3x24x32")[None]
    before = clip.clone()
    first, second, other = (ColorJitter()(clip, generator(name)) for name in ("a", "a", "b"))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(clip, before)


def test_no_change_is_no_work_and_draws_as_many_numbers() -> None:
    clip = rule_input("video/3x24x32")[None]
    states = []
    for transform in (ColorJitter(), ColorJitter(**OFF), ColorJitter(**OFF | {"contrast": 2.0})):
        rng = np.random.default_rng(5)
        result = transform(clip, rng)
        states.append(rng.random())
        assert torch.equal(result, clip) == (transform == ColorJitter(**OFF))
    assert len(set(states)) == 1
    assert ColorJitter(**OFF)(clip, generator("none")).data_ptr() == clip.data_ptr()


@pytest.mark.parametrize("reach", [0.5, 2.0])
def test_brightness_is_a_factor_of_one_plus_or_minus_the_reach_and_never_negative(reach: float) -> None:
    clip, rng = torch.full((1, 1, 1, 1, 3), 50, dtype=torch.uint8), generator("brightness")
    jitter = ColorJitter(**OFF | {"brightness": reach})
    factors = [jitter(clip, rng).unique().item() / 50 for _ in range(500)]
    assert min(factors) == pytest.approx(max(0.0, 1 - reach), abs=0.05)
    assert max(factors) == pytest.approx(1 + reach, abs=0.05)
    assert np.mean(factors) == pytest.approx((max(0.0, 1 - reach) + 1 + reach) / 2, abs=0.1)


def test_grey_has_no_saturation_and_no_hue_to_change() -> None:
    grey = rule_input("video/2x24x32")[None, ..., :1].expand(-1, -1, -1, -1, 3)
    jittered = ColorJitter(brightness=0.0, contrast=0.0)(grey, generator("grey"))
    assert (jittered.int() - grey.int()).abs().max() <= 1


@pytest.mark.slow
def test_decoder_processes_import_torchvision_where_they_need_it_only() -> None:
    code = "import sys, iwin.data.datasets, iwin.transforms.augment; print('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
