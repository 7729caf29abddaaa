from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iwin.engine.loss import binary_cross_entropy, cross_entropy, smooth
from tests.goldens import load_json, load_npz
from tests.sources import Golden, over_goldens


@over_goldens
@pytest.mark.parametrize("targets", ["hard", "soft"])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_are_the_original_ones(golden: Golden, targets: str, weighted: bool) -> None:
    facts, arrays = load_json(golden("data/losses.json")), load_npz(golden("data/losses.npz"))
    values = {"hard": arrays["labels"], "soft": arrays["soft"]}[targets]
    weights = torch.tensor(facts["class_weight"]) if weighted else None
    loss = cross_entropy(torch.from_numpy(arrays["scores"]), torch.from_numpy(values), class_weights=weights)
    assert loss.item() == pytest.approx(facts[f"ce_{targets}{'_class_weight' if weighted else ''}"], abs=1e-6)


@over_goldens
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_targets_are_the_original_ones(golden: Golden, smoothing: float) -> None:
    arrays = load_npz(golden("data/blending.npz"))
    labels = torch.nn.functional.one_hot(torch.from_numpy(arrays["labels"]).flatten(), 5).float()
    expected = arrays[f"labelsmoothing_{smoothing}|label"]
    np.testing.assert_allclose(smooth(labels, smoothing), expected, rtol=0, atol=1e-7)


def scores_and_labels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, generator=generator), torch.randint(5, (6,), generator=generator)


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}, {"weight": torch.arange(1.0, 6.0)}])
def test_the_loss_of_labels_is_that_of_torch(settings: dict[str, Any]) -> None:
    logits, labels = scores_and_labels()
    expected = torch.nn.functional.cross_entropy(logits, labels, **settings)
    actual = cross_entropy(
        logits, labels, class_weights=settings.get("weight"), smoothing=settings.get("label_smoothing", 0.0)
    )
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("weights", [None, torch.arange(1.0, 6.0)])
def test_labels_are_probabilities_of_one(weights: Tensor | None) -> None:
    logits, labels = scores_and_labels()
    soft = torch.nn.functional.one_hot(labels, 5).float()
    for smoothing in (0.0, 0.3):
        hard_loss, soft_loss = (
            cross_entropy(logits, targets, class_weights=weights, smoothing=smoothing) for targets in (labels, soft)
        )
        torch.testing.assert_close(hard_loss, soft_loss)


def test_binary_cross_entropy_treats_every_class_by_itself() -> None:
    logits, targets = torch.tensor([[2.0, -1.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    right = torch.tensor([2.0, 1.0, 0.0, 3.0]).sigmoid()
    assert binary_cross_entropy(logits, targets).item() == pytest.approx(-right.log().mean().item())
    assert binary_cross_entropy(logits, torch.tensor([0, 1])).equal(binary_cross_entropy(logits, targets))
    weights = torch.tensor([2.0, 0.0])
    weighed = binary_cross_entropy(logits, targets, class_weights=weights)
    assert weighed.item() == pytest.approx(-2 * (right[0].log() + right[2].log()).item() / 4)
    soft = binary_cross_entropy(logits, 0.8 * targets + 0.1)
    assert binary_cross_entropy(logits, targets, smoothing=0.2).item() == pytest.approx(soft.item())
