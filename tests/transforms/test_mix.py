from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iwin.engine.loss import smooth
from iwin.errors import DataError
from iwin.transforms.mix import Blend, cutmix, cutmix_box, mixup
from tests.goldens import generator, load_json, load_npz
from tests.sources import Golden, over_goldens

Arrays = dict[str, Any]


def one_hot(labels: Any) -> Tensor:
    return torch.nn.functional.one_hot(torch.as_tensor(labels).flatten(), 5).float()


def cases(arrays: Arrays, kind: str) -> list[tuple[str, float, Tensor]]:
    """(name, lam, targets before mixing) of all cases of a kind; names are like "cutmix_sm0.1_lam0.3_c5-4"."""
    names = [name.removesuffix("|label") for name in arrays if name.startswith(kind) and name.endswith("|label")]
    found = []
    for name in names:
        smoothing, lam = (float(part.lstrip("smla")) for part in name.split("_")[1:3])
        found.append((name, lam, smooth(one_hot(arrays["labels"]), smoothing)))
    assert len(found) >= 8
    return found


def assert_mixed(arrays: Arrays, name: str, clips: Tensor, targets: Tensor) -> None:
    np.testing.assert_allclose(targets, arrays[f"{name}|label"], rtol=0, atol=2e-7, err_msg=name)
    if f"{name}|imgs" in arrays:  # the subset has those of some cases
        np.testing.assert_allclose(clips, arrays[f"{name}|imgs"], rtol=0, atol=5e-7, err_msg=name)


@over_goldens
def test_mixup_gives_the_original_clips_and_targets(golden: Golden) -> None:
    arrays = load_npz(golden("data/blending.npz"))
    clips, permutation = torch.from_numpy(arrays["imgs"]), torch.from_numpy(arrays["rand_index"])
    for name, lam, targets in cases(arrays, "mixup_"):
        assert_mixed(arrays, name, *mixup(clips, targets, lam=lam, permutation=permutation))


@over_goldens
def test_cutmix_gives_the_original_boxes_clips_and_targets(golden: Golden) -> None:
    facts, arrays = load_json(golden("data/blending.json")), load_npz(golden("data/blending.npz"))
    clips, permutation = torch.from_numpy(arrays["imgs"]), torch.from_numpy(arrays["rand_index"])
    before = clips.clone()
    for name, lam, targets in cases(arrays, "cutmix_"):
        x, y = (int(number) for number in name.split("_c")[1].split("-"))
        box = cutmix_box(lam, y=y, x=x, height=8, width=10)
        left, top, right, bottom = facts[name]["bbox_x1y1x2y2"]
        assert box == (top, left, bottom, right), name
        assert_mixed(arrays, name, *cutmix(clips, targets, box=box, permutation=permutation))
    assert torch.equal(clips, before)


def test_the_extremes_are_one_clip_and_the_other() -> None:
    clips, targets = torch.randn(3, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)), one_hot([0, 1, 2])
    permutation = torch.tensor([1, 2, 0])
    for lam, order in ((1.0, torch.arange(3)), (0.0, permutation)):
        mixed, soft = mixup(clips, targets, lam=lam, permutation=permutation)
        assert torch.equal(mixed, clips[order])
        assert torch.equal(soft, targets[order])


def test_mixed_clips_stay_channels_last() -> None:
    """As the model wants them and `normalize` gives them."""
    clips = torch.zeros(2, 4, 6, 8, 3).movedim(-1, 1)
    permutation = torch.tensor([1, 0])
    for mixed, _ in (
        mixup(clips, one_hot([0, 1]), lam=0.3, permutation=permutation),
        cutmix(clips, one_hot([0, 1]), box=(1, 2, 3, 5), permutation=permutation),
    ):
        assert mixed.is_contiguous(memory_format=torch.channels_last_3d)


# ------------------------------------------------------------------------------------------- random parameters


def batch(size: int = 4) -> tuple[Tensor, Tensor]:
    """Clips (N, 3, 2, 8, 10), each filled with its own number, and as many labels."""
    clips = torch.arange(1, size + 1).float().view(-1, 1, 1, 1, 1).expand(-1, 3, 2, 8, 10)
    return clips, torch.arange(size) % 5


def test_parameters_come_from_seed_epoch_batch_and_rank_alone() -> None:
    clips, labels = batch()
    blend = Blend(num_classes=5, mixup_alpha=0.8, seed=1)
    reference = blend(clips, labels, 2, 3)
    for same, equal in (
        (blend(clips, labels, 2, 3), True),
        (blend(clips, labels, 2, 4), False),
        (blend(clips, labels, 3, 3), False),
        (Blend(num_classes=5, mixup_alpha=0.8, seed=2)(clips, labels, 2, 3), False),
        (Blend(num_classes=5, mixup_alpha=0.8, seed=1, rank=1)(clips, labels, 2, 3), False),
    ):
        assert torch.equal(same[0], reference[0]) == equal


@pytest.mark.parametrize("settings", [{"mixup_alpha": 0.2}, {"cutmix_alpha": 1.0}])
def test_targets_follow_what_is_in_the_clips(settings: dict[str, Any]) -> None:
    """The mean over a clip's pixels tells the shares; those of its target say the same."""
    clips, labels = batch(5)
    for index in range(50):
        mixed, targets = Blend(num_classes=5, **settings)(clips, labels, 0, index)
        assert targets.dtype == torch.float32
        torch.testing.assert_close(targets.sum(1), torch.ones(5))
        torch.testing.assert_close(targets @ torch.arange(1.0, 6.0), mixed.mean((1, 2, 3, 4)))
        assert torch.equal(mixed, mixed[:, :1, :1].expand_as(mixed)), "all frames and channels alike"


def test_cutmix_is_chosen_as_often_as_it_should() -> None:
    clips, labels = batch()
    blend = Blend(num_classes=5, mixup_alpha=1.0, cutmix_alpha=1.0, cutmix_probability=0.3)
    # mixup gives every clip one value, cutmix two (unless the box is empty or a clip meets itself)
    kinds = [blend(clips, labels, 0, index)[0].flatten(1).std(1).max().item() > 0 for index in range(400)]
    assert np.mean(kinds) == pytest.approx(0.28, abs=0.06)


@pytest.mark.parametrize(("alpha", "spread"), [(0.2, 0.42), (1.0, 0.29), (8.0, 0.12)])
def test_shares_are_beta_distributed(alpha: float, spread: float) -> None:
    clips, labels = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1, 1), torch.tensor([0, 1])
    shares = []
    for index in range(1000):
        mixed, _ = Blend(num_classes=2, mixup_alpha=alpha)(clips, labels, 0, index)
        if mixed[0] > 0:  # the two met each other
            shares.append(mixed[0].item())
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.std(shares) == pytest.approx(spread, abs=0.04)


def test_one_of_the_two_must_be_on() -> None:
    with pytest.raises(DataError, match="mixup_alpha or cutmix_alpha"):
        Blend(num_classes=5)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{"mixup_alpha": 0.2}, {"cutmix_alpha": 1.0}])
def test_a_gpu_mixes_the_same(settings: dict[str, Any]) -> None:
    clips = torch.from_numpy(generator("gpu").standard_normal((4, 3, 2, 8, 10), dtype=np.float32))
    labels = torch.arange(4)
    expected = Blend(num_classes=5, **settings)(clips, labels, 0, 0)
    for actual, value in zip(
        Blend(num_classes=5, **settings)(clips.cuda(), labels.cuda(), 0, 0), expected, strict=True
    ):
        assert actual.is_cuda
        torch.testing.assert_close(actual.cpu(), value, rtol=0, atol=1e-6)
