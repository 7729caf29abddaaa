import numpy as np
import pytest

from iwin.engine.evaluate import Scores, figures, label_array
from iwin.errors import DataError


def scores(rows: list[list[float] | None], labels: list[tuple[int, ...]], *, several: bool = False) -> Scores:
    array = np.array([[np.nan] * 3 if row is None else row for row in rows], dtype=np.float32)
    decoded = np.array([row is not None for row in rows])
    return Scores(array, label_array(labels, num_classes=3 if several else None), decoded)


RIGHT, WRONG = [0.9, 0.06, 0.04], [0.04, 0.06, 0.9]


def test_figures_rest_on_what_decoded_and_are_told_for_all_listed_too() -> None:
    found = figures(
        scores([RIGHT, RIGHT, WRONG, None], [(0,), (0,), (1,), (1,)]),
        metrics=["top_k_accuracy", "mean_class_accuracy"],
        topk=(1, 2),
    )
    assert found == {
        "top1_acc": pytest.approx(2 / 3),
        "top2_acc": pytest.approx(1.0),
        "mean_class_accuracy": pytest.approx(1 / 3),  # class 2 is predicted and has no video
        "top1_acc_listed": pytest.approx(2 / 4),
        "top2_acc_listed": pytest.approx(3 / 4),
        "mean_class_accuracy_listed": pytest.approx(1 / 3),
        "videos": 3,
        "listed": 4,
    }


def test_a_class_that_did_not_decode_counts_as_wrong() -> None:
    found = figures(scores([RIGHT, None], [(0,), (1,)]), metrics=["mean_class_accuracy"], topk=())
    assert (found["mean_class_accuracy"], found["mean_class_accuracy_listed"]) == (1.0, 0.5)


def test_everything_decoded_is_told_once() -> None:
    found = figures(scores([RIGHT, WRONG], [(0,), (2,)]), metrics=["top_k_accuracy"], topk=(1,))
    assert found == {"top1_acc": 1.0, "videos": 2, "listed": 2}


def test_several_labels_have_a_mean_average_precision() -> None:
    found = figures(
        scores([RIGHT, WRONG, None], [(0,), (2, 1), (0,)], several=True), metrics=["mean_average_precision"], topk=()
    )
    assert found["mean_average_precision"] == pytest.approx((1 + 0.5 + 1) / 3)
    # Class 0 has two videos, of which the unread one ranks last; class 1 ties.
    assert found["mean_average_precision_listed"] == pytest.approx(((1 + 2 / 3) / 2 + 0.5 + 1) / 3)


@pytest.mark.parametrize(("several", "metric"), [(True, "top_k_accuracy"), (False, "mean_average_precision")])
def test_a_metric_for_other_labels_is_refused(several: bool, metric: str) -> None:
    with pytest.raises(DataError, match=f"{metric} is not for lists of"):
        figures(scores([RIGHT], [(0,)], several=several), metrics=[metric], topk=(1,))


def test_a_label_outside_the_classes_is_refused() -> None:
    with pytest.raises(DataError, match="label 3 is not one of the 3 classes"):
        label_array([(0, 3)], num_classes=3)
