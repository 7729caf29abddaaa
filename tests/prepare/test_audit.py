"""From facts to a verdict, without files."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from iwin.data.annotations import Annotations, FrameFolder, Sample
from iwin.errors import DataError
from iwin.prepare.audit import Audit, Rules, audit
from iwin.prepare.probe import VideoFacts
from iwin.prepare.splits import Split


def split(name: str, lines: Mapping[str, int], *, classes: tuple[str, ...] | None = None) -> Split:
    samples = tuple(Sample(f"root/{path}", (label,)) for path, label in lines.items())
    return Split(name, Annotations(samples, classes, f"{name}.txt"), Path("root"))


def judge(*splits: Split, facts: Mapping[str, VideoFacts] | None = None, **rules: object) -> Audit:
    """Videos are good, ten frames long and different from each other unless `facts` says otherwise."""
    known = {sample.path: VideoFacts(sample.path, num_frames=10) for one in splits for sample in one.samples}
    known |= {f"root/{path}": one for path, one in (facts or {}).items()}
    return audit(splits, known, Rules(**rules))  # type: ignore[arg-type]


def left_out(found: Audit) -> dict[str, str]:
    return {str(row): row.left_out for row in found.rows if row.left_out is not None}


def test_a_good_data_set_may_be_trained_on() -> None:
    found = judge(split("train", {"a.mp4": 0, "b.mp4": 1}), split("val", {"c.mp4": 0}))
    assert found.reasons == ()
    assert [row.path for row in found.clean("train")] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.1, 0)])
def test_bad_files_above_the_cap_are_a_reason(share: float, count: int) -> None:
    train = split("train", {f"{number}.mp4": 0 for number in range(10)})
    found = judge(train, facts={"3.mp4": VideoFacts("", problem="missing")}, max_bad_share=share)
    assert left_out(found) == {"train: 3.mp4": "missing"}
    assert len(found.reasons) == count
    assert found.reasons == ("1 of 10 videos (10.0%) are unfit, more than 1.0%",)[:count]


def test_short_videos_are_left_out() -> None:
    train = split("train", {"a.mp4": 0, "b.mp4": 0})
    facts = {"a.mp4": VideoFacts("", num_frames=7)}
    assert left_out(judge(train, facts=facts, min_frames=7)) == {}
    assert left_out(judge(train, facts=facts, min_frames=8)) == {"train: a.mp4": "short"}


def same(*paths: str) -> dict[str, VideoFacts]:
    return {path: VideoFacts("", num_frames=10, digest="d") for path in paths}


def test_of_equal_videos_the_first_stays() -> None:
    found = judge(split("train", {"a.mp4": 0, "b.mp4": 0, "c.mp4": 0}), facts=same("b.mp4", "c.mp4"), max_bad_share=1)
    assert left_out(found) == {"train: c.mp4": "duplicate"}
    assert [list(map(str, rows)) for rows in found.duplicates] == [["train: b.mp4", "train: c.mp4"]]
    assert found.reasons == ()


@pytest.mark.parametrize("names", [("train", "val", "test"), ("val", "train", "test")])
def test_training_gives_up_what_validation_has_too(names: tuple[str, ...]) -> None:
    splits = [split(name, {f"{name}.mp4": 0, f"{name} own.mp4": 0}) for name in names]
    found = judge(*splits, facts=same("train.mp4", "val.mp4"), max_bad_share=1)
    assert left_out(found) == {"train: train.mp4": "also in val"}
    assert len(found.leaks) == 1


def test_one_file_in_two_lists_is_a_leak() -> None:
    found = judge(split("train", {"a.mp4": 0, "b.mp4": 0}), split("val", {"b.mp4": 0}), max_bad_share=1)
    assert left_out(found) == {"train: b.mp4": "also in val"}


def test_equal_videos_under_different_labels_are_a_reason() -> None:
    train = split("train", {"a.mp4": 0, "b.mp4": 1, "c.mp4": 0, "d.mp4": 1})
    found = judge(train, facts=same("a.mp4", "b.mp4"), max_bad_share=1)
    assert set(left_out(found).values()) == {"same content under another label"}
    (reason,) = found.reasons
    assert reason == ("1 video under different labels, such as train: a.mp4 (label 0) and train: b.mp4 (label 1)")


def test_labels_outside_the_models_classes_are_a_reason() -> None:
    found = judge(split("train", {"a.mp4": 0, "b.mp4": 1, "c.mp4": 2}), num_classes=2, max_bad_share=1)
    assert found.reasons == ("1 video with a label outside the classes, such as train: c.mp4 (label 2)",)
    assert [row.path for row in found.clean("train")] == ["a.mp4", "b.mp4"]


def test_a_class_that_cannot_be_learnt_is_a_reason() -> None:
    train = split("train", {"a.mp4": 0, "b.mp4": 2}, classes=("x", "y", "z"))
    val = split("val", {"c.mp4": 0}, classes=("x", "y", "z"))
    facts = {"b.mp4": VideoFacts("", problem="empty")}
    found = judge(train, val, facts=facts, max_bad_share=1)
    assert found.empty == {"train": ("y", "z"), "val": ("y", "z")}
    assert found.reasons == ("2 classes without a video to train on, such as y",)
    assert judge(train, val, facts=facts, max_bad_share=1, allow_empty_classes=True).reasons == ()
    assert judge(val).reasons == ()  # nothing to train on here


def test_splits_must_agree_on_the_class_names() -> None:
    found = judge(split("train", {"a.mp4": 0}, classes=("x",)), split("val", {"b.mp4": 0}, classes=("y",)))
    assert found.reasons == ("the splits do not have the same class names",)


UCF = ("v_Run_g01_c01.avi", "v_Run_g02_c01.avi", "v_Run_g01_c02.avi")
KINETICS = ("_dbcJuKJQNs_000040_000050.mp4", "a-b_CDEFGHI_000001_000011.mp4", "_dbcJuKJQNs_000060_000070.mp4")


@pytest.mark.parametrize(
    ("names", "rule", "group"),
    [
        (UCF, None, "v_Run_g01"),
        (UCF, "ucf101", "v_Run_g01"),
        (KINETICS, None, "_dbcJuKJQNs"),
        (KINETICS, "kinetics", "_dbcJuKJQNs"),
        (("x1a.mp4", "x2.mp4", "x1b.mp4"), r"x\d", "x1"),
    ],
)
def test_recordings_in_two_splits_are_a_reason(names: tuple[str, ...], rule: str | None, group: str) -> None:
    a, b, c = names
    found = judge(split("train", {f"c/{a}": 0, f"c/{b}": 0}), split("val", {f"c/{c}": 0}), groups=rule)
    assert found.groups == {group: {"train": 1, "val": 1}}
    assert found.reasons == (f"1 recording in several splits, such as {group} in train and val",)
    assert judge(split("train", {f"c/{a}": 0}), split("val", {f"c/{b}": 0}), groups=rule).reasons == ()


def test_unknown_names_have_no_rule() -> None:
    assert judge(split("train", {"a.mp4": 0})).rule is None
    assert judge(split("train", dict.fromkeys(UCF, 0)), groups="none").rule is None


def test_a_rule_has_to_be_a_regular_expression() -> None:
    with pytest.raises(DataError, match=r"--group-regex \(: is no regular expression"):
        judge(split("train", {"a.mp4": 0}), groups="(")


def test_odd_aspects_are_told_and_allowed() -> None:
    train = split("train", {"a.mp4": 0, "b.mp4": 0})
    found = judge(train, facts={"a.mp4": VideoFacts("", num_frames=10, height=100, width=301)})
    assert [row.path for row in found.odd] == ["a.mp4"]
    assert found.reasons == ()


def test_videos_without_a_label_are_a_reason() -> None:
    samples = (Sample("root/a.mp4", (0,)), Sample("root/b.mp4", ()), Sample("root/gone.mp4 run", ()))
    train = Split("train", Annotations(samples, None, "train.txt"), Path("root"))
    found = judge(train, facts={"gone.mp4 run": VideoFacts("", problem="missing")}, max_bad_share=1)
    assert left_out(found) == {"train: b.mp4": "no label", "train: gone.mp4 run": "no label"}
    assert found.reasons == ("2 videos without a label, such as train: b.mp4",)


def test_a_class_that_only_validation_has_is_outside() -> None:
    names = ("x", "y")
    train = split("train", {"a.mp4": 0, "b.mp4": 1}, classes=names)
    found = judge(train, split("val", {"c.mp4": 2}, classes=names), max_bad_share=1)
    assert found.reasons == ("1 video with a label outside the classes, such as val: c.mp4 (label 2)",)
    (reason,) = judge(train, split("val", {"c.mp4": 2}), max_bad_share=1).reasons  # names go before numbers
    assert "outside the classes" in reason


def test_an_empty_class_folder_is_a_reason_even_where_classes_may_be_empty() -> None:
    train = replace(split("train", {"a.mp4": 0}, classes=("x", "y", "z")), hollow=("y",))
    assert judge(train).reasons == (
        "1 class folder without a video, such as y",
        "1 class without a video to train on, such as z",
    )
    assert judge(train, allow_empty_classes=True).reasons == ("1 class folder without a video, such as y",)


def test_a_list_that_training_takes_for_one_of_another_folder_is_a_reason() -> None:
    train = split("train", {f"{number}.mp4": 0 for number in range(100)})
    gone = {f"{number}.mp4": VideoFacts("", problem="missing") for number in range(20)}
    assert judge(train, facts=gone, max_bad_share=1).reasons == (
        "the first 20 videos of train are missing, so training would refuse it",
    )
    del gone["7.mp4"]
    assert judge(train, facts=gone, max_bad_share=1).reasons == ()


def test_parts_of_a_folder_of_frames_are_no_copies() -> None:
    parts = [Sample("root/imgs", (label,), FrameFolder(5, first)) for label, first in ((0, 1), (1, 6), (1, 6))]
    train = Split("train", Annotations(tuple(parts), None, "train.txt"), Path("root"))
    found = audit([train], {part.key: VideoFacts(part.key, num_frames=5) for part in parts}, Rules(max_bad_share=1))
    assert [row.left_out for row in found.rows] == [None, None, "duplicate"]
    assert found.reasons == ()
