"""The kernel in C++ against PyTorch's."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from iwin.native import has
from iwin.transforms.bilinear import SOURCE, Cutout, cut, resize, takes
from iwin.transforms.boxes import Box, Size
from iwin.transforms.geometry import crop
from tests.memory import fenced

needs_kernel = pytest.mark.skipif(
    not has(SOURCE, "interpolate"), reason="the kernel needs a C++ compiler and AVX-512 VBMI"
)


def pictures(height: int, width: int, *, count: int = 2) -> Tensor:
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)


def by_pytorch(frames: Tensor, size: Size) -> Tensor:
    resized = F.interpolate(frames.permute(0, 3, 1, 2), size, mode="bilinear", antialias=False)
    return resized.permute(0, 2, 3, 1)


@needs_kernel
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (256, 340, (224, 224)),
        (720, 1280, (256, 455)),
        (190, 163, (224, 224)),  # larger one way, larger the other
        (256, 340, (256, 224)),  # columns alone
        (256, 340, (224, 340)),  # rows alone
        (43, 43, (300, 300)),  # as narrow as the kernel takes
        (97, 600, (13, 100)),  # as much as it shrinks rows
        (1, 50, (7, 9)),
        (500, 50, (1, 50)),
    ],
)
def test_kernel_gives_pytorchs_bytes(height: int, width: int, size: Size) -> None:
    torch.manual_seed(0)
    frames = pictures(height, width)
    whole = Cutout((height, width), size, Box(0, 0, *size))
    assert takes(whole)
    assert torch.equal(cut(crop(frames[None], whole.source)[0], whole), by_pytorch(frames, size))


@needs_kernel
def test_cutouts_are_parts_of_the_whole() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tried = 0
    for _ in range(200):
        height, width, *size = (int(side) for side in rng.integers(1, [300, 400, 250, 250]))
        rows, columns = int(rng.integers(size[0])) + 1, int(rng.integers(size[1])) + 1
        top, left = int(rng.integers(size[0] - rows + 1)), int(rng.integers(size[1] - columns + 1))
        cutout = Cutout((height, width), (size[0], size[1]), Box(top, left, rows, columns))
        if not takes(cutout):
            continue
        tried += 1
        frames = pictures(height, width)
        expected = by_pytorch(frames, cutout.size)[:, top : top + rows, left : left + columns]
        assert torch.equal(cut(crop(frames[None], cutout.source)[0], cutout), expected), cutout
    assert tried > 50


@needs_kernel
@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_beside_pictures_and_result_is_touched(at_end: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given, made = fenced(2**18), fenced(2**18)  # to touch what lies beside them ends the process

    def placed(memory: Tensor, *shape: int) -> Tensor:
        size = math.prod(shape)
        return (memory[-size:] if at_end else memory[:size]).view(shape)

    monkeypatch.setattr("iwin.transforms.bilinear.empty_clip", lambda *shape: placed(made, *shape))
    for width in range(43, 100):
        for size, box in (((20, 57), Box(0, 0, 20, 57)), ((31, 2 * width), Box(3, width, 28, width))):
            cutout = Cutout((30, width), size, box)
            if takes(cutout):
                source = cutout.source
                frames = placed(given, 1, source.height, source.width, 3).random_(0, 256)
                assert cut(frames, cutout).shape == (1, box.height, box.width, 3)


@needs_kernel
def test_a_cutout_of_other_pictures_is_refused() -> None:
    cutout = Cutout((100, 100), (200, 200), Box(0, 0, 200, 200))
    with pytest.raises(ValueError, match="is made of uint8"):
        cut(pictures(10, 100), cutout)


def test_boxes_beside_the_picture_and_empty_ones_are_not_taken() -> None:
    for box in (Box(150, 0, 60, 60), Box(-1, 0, 60, 60), Box(0, 0, 0, 60)):
        assert not takes(Cutout((100, 100), (200, 200), box))
    assert not takes(Cutout((0, 100), (64, 64), Box(0, 0, 64, 64)))
    with pytest.raises(RuntimeError):
        resize(torch.zeros(1, 1, 0, 120, 3, dtype=torch.uint8), (64, 48))


def test_clips_of_one_colour_are_left_to_pytorch() -> None:
    clip = pictures(50, 60).unflatten(0, (1, 2))[..., :1]
    assert resize(clip, (20, 30)).shape == (1, 2, 20, 30, 1)


def test_a_cutout_depends_on_no_more_than_it_says() -> None:
    cutout = Cutout((100, 200), (50, 100), Box(10, 20, 5, 8))
    assert cutout.source == Box(20, 40, 10, 16)
    assert Cutout((100, 200), (50, 100), Box(0, 0, 50, 100)).source == Box(0, 0, 100, 200)


@pytest.mark.parametrize("kernel", [pytest.param(True, marks=needs_kernel), False])
def test_clips_of_all_layouts_are_resized(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:
        monkeypatch.setattr("iwin.transforms.bilinear.takes", lambda _cutout: False)
    torch.manual_seed(0)
    clip = pictures(90, 120, count=6).unflatten(0, (2, 3))
    turned = clip.transpose(2, 3)
    narrow = clip[..., :40, :]
    for given in (clip, crop(clip, Box(7, 9, 60, 70)), turned, narrow):
        resized = resize(given, (64, 48))
        assert resized.shape == (2, 3, 64, 48, 3)
        assert torch.equal(resized.flatten(0, 1), by_pytorch(given.flatten(0, 1), (64, 48)))
