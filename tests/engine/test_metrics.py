from typing import Any

import numpy as np
import pytest

from iwin.engine.metrics import (
    average_precision,
    confusion_matrix,
    label_ranks,
    mean_average_precision,
    mean_class_accuracy,
    top_k_accuracy,
)
from iwin.errors import DataError
from tests.goldens import generator, load_json, load_npz
from tests.sources import Golden, over_goldens


def single_label_cases(golden: Golden) -> list[tuple[str, dict[str, Any], Any, Any]]:
    """(name, expected numbers, scores, labels) of the cases with one label a video."""
    facts, arrays = load_json(golden("data/metrics.json")), load_npz(golden("data/metrics.npz"))
    names = [name for name in facts if f"{name}|confusion_None" in arrays]
    assert len(names) >= 5
    return [(name, facts[name], arrays[f"{name}|scores"], arrays[f"{name}|labels"]) for name in names]


@over_goldens
def test_top_k_accuracy_is_the_original_one(golden: Golden) -> None:
    for name, facts, scores, labels in single_label_cases(golden):
        actual = top_k_accuracy(scores, labels, topk=facts["topk"])
        if facts["ties"]:
            # the original's number depends on the machine among equal scores: it is within these bounds, as ours is
            assert (np.array(actual) <= facts["top_k_if_label_wins_ties"]).all(), name
            assert (np.array(actual) >= facts["top_k_if_label_loses_ties"]).all(), name
        else:
            assert actual == pytest.approx(facts["top_k_accuracy"], abs=1e-12), name


@over_goldens
def test_mean_class_accuracy_is_the_original_one(golden: Golden) -> None:
    for name, facts, scores, labels in single_label_cases(golden):
        assert mean_class_accuracy(scores, labels) == pytest.approx(facts["mean_class_accuracy"], abs=1e-12), name


@over_goldens
@pytest.mark.parametrize(
    ("normalize", "suffix"), [(None, "None"), ("true", "true"), ("predicted", "pred"), ("all", "all")]
)
def test_confusion_matrix_is_the_original_one(golden: Golden, normalize: Any, suffix: str) -> None:
    arrays = load_npz(golden("data/metrics.npz"))
    for name, _, scores, labels in single_label_cases(golden):
        predictions = np.argmax(scores, axis=1)
        actual = confusion_matrix(predictions, labels, num_classes=scores.shape[1], normalize=normalize)
        seen = np.union1d(predictions, labels)  # upstream's matrix has only these classes
        np.testing.assert_allclose(actual[np.ix_(seen, seen)], arrays[f"{name}|confusion_{suffix}"], atol=1e-12)
        rest = np.setdiff1d(np.arange(scores.shape[1]), seen)
        assert not actual[rest].any()
        assert not actual[:, rest].any()


@over_goldens
@pytest.mark.parametrize("case", ["map", "map_ties"])
def test_mean_average_precision_is_the_original_one(golden: Golden, case: str) -> None:
    facts, arrays = load_json(golden("data/metrics.json"))[case], load_npz(golden("data/metrics.npz"))
    for labels, expected in (
        ("labels", "mean_average_precision"),
        ("labels_each_sample_positive", "map_each_sample_positive"),
    ):
        actual = mean_average_precision(arrays[f"{case}|scores"], arrays[f"{case}|{labels}"])
        assert actual == pytest.approx(facts[expected], abs=1e-12)


def test_the_smaller_index_wins_ties_in_every_metric() -> None:
    scores = np.array([[1.0, 2.0, 2.0, 2.0, 0.0]]).repeat(5, axis=0)
    labels = np.arange(5)
    assert label_ranks(scores, labels).tolist() == [3, 0, 1, 2, 4]
    assert top_k_accuracy(scores, labels, topk=(1, 2, 5)) == (0.2, 0.4, 1.0)
    assert mean_class_accuracy(scores, labels) == pytest.approx(0.2)


def test_nan_ranks_above_every_number() -> None:
    scores = np.array([[np.nan, np.inf, 3.0], [1.0, np.nan, np.nan], [np.nan, np.nan, np.nan]])
    for label, ranks in ((0, [0, 2, 0]), (1, [1, 0, 1]), (2, [2, 1, 2])):
        assert label_ranks(scores, np.full(3, label)).tolist() == ranks
    assert average_precision(np.array([0.5, np.nan, 0.9]), np.array([False, True, False])) == 1.0
    assert average_precision(np.array([np.nan, np.nan, 0.9]), np.array([False, True, False])) == 0.5


def test_top_1_is_the_share_of_right_predictions() -> None:
    rng = generator("accuracies")
    scores, labels = rng.integers(0, 4, size=(300, 7)).astype(np.float32), rng.integers(0, 7, size=300)
    [top_1] = top_k_accuracy(scores, labels, topk=(1,))
    assert top_1 == np.mean(np.argmax(scores, axis=1) == labels)


def test_infinite_scores_are_equal_to_each_other() -> None:
    scores = np.array([np.inf, np.inf, 0.0])
    assert average_precision(scores, np.array([True, False, False])) == 0.5


def test_average_precision_without_positives_is_unknown_and_left_out() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.3]])
    assert np.isnan(average_precision(scores[:, 0], np.zeros(2, dtype=bool)))
    assert mean_average_precision(scores, np.array([[1, 0], [0, 0]])) == 1.0
    assert np.isnan(mean_average_precision(scores, np.zeros((2, 2))))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((0, 5)), np.zeros(0, dtype=int), "at least one of each"),
        (np.zeros((3, 5)), np.zeros(2, dtype=int), "one label a video"),
        (np.zeros((2, 5)), np.array([0, 5]), r"label 5 is not one of the 5 classes 0 \.\. 4"),
        (np.zeros((2, 5)), np.array([-1, 0]), "label -1"),
    ],
)
def test_input_that_does_not_fit_is_named(scores: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        top_k_accuracy(scores, labels)
    with pytest.raises(DataError, match=message):
        mean_class_accuracy(scores, labels)


def test_other_input_that_does_not_fit_is_named() -> None:
    with pytest.raises(DataError, match="prediction 4"):
        confusion_matrix(np.array([4]), np.array([0]), num_classes=4)
    with pytest.raises(DataError, match="one prediction a label"):
        confusion_matrix(np.array([1, 2]), np.array([0]), num_classes=4)
    with pytest.raises(DataError, match="multi-hot"):
        mean_average_precision(np.zeros((2, 3)), np.zeros((2, 4)))
