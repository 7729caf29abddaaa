import math
import re
from typing import Any

import numpy as np
import pytest

from iwin.engine.schedule import Schedule
from iwin.errors import ConfigError
from tests.goldens import load_json, load_npz
from tests.sources import Golden, over_goldens

RECIPE = Schedule(policy="cosine", warmup="linear", warmup_length=2.5, warmup_by_epoch=True)
"""The schedule of all published recipes."""


def rates(schedule: Schedule, base_lr: float, *, length: int, epochs: int) -> list[float]:
    """The rate at every iteration of a run."""
    return [
        schedule.lr(base_lr, iteration=iteration, iterations_per_epoch=length, epochs=epochs)
        for iteration in range(length * epochs)
    ]


@over_goldens
def test_the_recipes_have_the_original_rates(golden: Golden) -> None:
    facts, arrays = load_json(golden("data/lr.json")), load_npz(golden("data/lr.npz"))
    runs = [(name, re.fullmatch(r"epochlen(\d+)_epochs(\d+)", name)) for name in arrays]
    checked = 0
    for name, match in runs:
        if match is None:
            continue
        length, epochs = (int(n) for n in match.groups())
        for group, base_lr in enumerate(facts[name]["base_lr"]):
            actual = rates(RECIPE, base_lr, length=length, epochs=epochs)
            np.testing.assert_allclose(actual, arrays[name][:, group], rtol=1e-12, err_msg=name)
        checked += 1
    assert checked == 7


@over_goldens
def test_a_resumed_run_continues_the_original_rates(golden: Golden) -> None:
    expected = load_npz(golden("data/lr.npz"))["resume_epoch2_epochlen10"]
    actual = rates(RECIPE, 1e-3, length=10, epochs=30)[20 : 20 + len(expected)]
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@over_goldens
def test_cosine_by_epoch(golden: Golden) -> None:
    expected = load_json(golden("data/lr.json"))["regular_30_epochs_base_1e-3"][:30]
    actual = rates(Schedule(policy="cosine"), 1e-3, length=3, epochs=30)
    np.testing.assert_allclose(actual, np.repeat(expected, 3), rtol=1e-12)


def test_warmup_between_two_iterations_stays_until_the_epoch_ends() -> None:
    actual = rates(RECIPE, 1.0, length=7, epochs=30)
    cosine = rates(Schedule(policy="cosine"), 1.0, length=7, epochs=30)
    assert actual[17] < cosine[17]
    assert actual[17:21] == [actual[17]] * 4, "2.5 epochs of 7 end after iteration 17: 17 stays for the third epoch"
    assert actual[21:] == cosine[21:]


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        ("constant", [0.1, 0.1, 0.1, 0.1]),
        ("linear", [0.1, 0.325, 0.55, 0.775]),
        ("exp", [0.1, 0.1**0.75, 0.1**0.5, 0.1**0.25]),
    ],
)
@pytest.mark.parametrize("by_epoch", [True, False])
def test_warmup_formulas(warmup: Any, expected: list[float], by_epoch: bool) -> None:
    schedule = Schedule(policy="constant", by_epoch=by_epoch, warmup=warmup, warmup_length=4, warmup_ratio=0.1)
    assert rates(schedule, 2.0, length=3, epochs=2) == pytest.approx([2 * rate for rate in expected] + [2.0, 2.0])


def test_warmup_by_iteration_leaves_a_fraction_at_once() -> None:
    schedule = Schedule(policy="constant", by_epoch=False, warmup="linear", warmup_length=2.5)
    assert rates(schedule, 1.0, length=6, epochs=1)[2:] == pytest.approx([0.82, 1.0, 1.0, 1.0])


def test_step_multiplies_at_each_step() -> None:
    by_epoch = Schedule(policy="step", steps=(1, 3), gamma=0.5)
    assert rates(by_epoch, 1.0, length=2, epochs=4) == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    by_iteration = Schedule(policy="step", by_epoch=False, steps=(1, 3), gamma=0.5)
    assert rates(by_iteration, 1.0, length=5, epochs=1) == [1, 0.5, 0.5, 0.25, 0.25]
    floored = Schedule(policy="step", steps=(1, 3), gamma=0.5, min_lr=0.4)
    assert rates(floored, 1.0, length=1, epochs=4) == [1, 0.5, 0.5, 0.4]


def test_cosine_by_iteration_and_its_minimum() -> None:
    schedule = Schedule(policy="cosine", by_epoch=False, min_lr=0.2)
    expected = [0.2 + 0.4 * (1 + math.cos(math.pi * i / 10)) for i in range(10)]
    assert rates(schedule, 1.0, length=5, epochs=2) == pytest.approx(expected)
    relative = Schedule(policy="cosine", by_epoch=False, min_lr_ratio=0.2)
    assert rates(relative, 3.0, length=5, epochs=2) == pytest.approx([3 * rate for rate in expected])


def test_constant() -> None:
    assert rates(Schedule(policy="constant"), 0.3, length=2, epochs=2) == [0.3] * 4


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="min_lr and min_lr_ratio"):
        Schedule(min_lr=0.1, min_lr_ratio=0.1)
    with pytest.raises(ConfigError, match="must rise"):
        Schedule(policy="step", steps=(3, 1))
