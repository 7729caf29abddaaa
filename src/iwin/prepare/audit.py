"""From what the files are to whether training may start: duplicates, leaks, labels, what a clean list leaves out."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from iwin.data.annotations import TRIED, Sample
from iwin.errors import DataError
from iwin.prepare.probe import VideoFacts
from iwin.prepare.splits import Split

GROUP_RULES = {"ucf101": r"^v_.+_g\d+(?=_c\d+$)", "kinetics": r"^.{11}(?=_\d{6}_\d{6}$)"}
"""What in a file's name, without suffix, tells which recording a clip was cut from: v_<class>_g<group> in UCF101, the
YouTube id in Kinetics."""

_RECOGNISED = 0.95
"""Share of the names that a known rule has to fit to be taken without being asked for."""

_ODD_ASPECT = 3.0
"""Pictures whose sides have a larger ratio are named: a banner, or a file gone wrong."""


@dataclass(frozen=True)
class Rules:
    """What is asked of a data set.

    Attributes:
        min_frames: a video with fewer is left out.
        max_bad_share: share of the videos that may be left out.
        groups: a name in `GROUP_RULES`, or a regular expression whose match in a file's name (without suffix) names
            the recording; "none" for no rule; None recognises the known ones.
        num_classes: of the model; None asks for no more than the lists do.
        allow_empty_classes: whether a class may have no video to train on.

    Raises:
        DataError: `groups` is no regular expression.
    """

    min_frames: int = 1
    max_bad_share: float = 0.01
    groups: str | None = None
    num_classes: int | None = None
    allow_empty_classes: bool = False

    def __post_init__(self) -> None:
        try:
            re.compile(self.groups or "")
        except re.error as error:
            raise DataError(
                f"--group-regex {self.groups}: is no regular expression ({error}) and none of {', '.join(GROUP_RULES)}"
            ) from None


@dataclass(frozen=True)
class Row:
    """A line of a split.

    Attributes:
        split: the split's name.
        path: as a list holds it.
        sample: the labelled video.
        facts: what its file is.
        left_out: why a clean list lacks it; None if it stands there.
    """

    split: str
    path: str
    sample: Sample
    facts: VideoFacts
    left_out: str | None = None

    def __str__(self) -> str:
        return f"{self.split}: {self.path}"


@dataclass(frozen=True)
class Audit:
    """What was found in a data set.

    Attributes:
        rows: every line of every split, in order.
        duplicates: videos of equal content within a split.
        leaks: videos of equal content in several splits.
        conflicts: videos of equal content with different labels.
        groups: recordings with clips in several splits: how many in each.
        rule: what the recordings were told by; None if there was no such rule.
        unlabelled: videos without a label.
        outside: videos with a label that there is no class for.
        empty: classes without a usable video, by split.
        odd: videos with an odd aspect.
        reasons: why training should not start, each the end of a sentence; none if it may.
    """

    rows: tuple[Row, ...]
    duplicates: tuple[tuple[Row, ...], ...]
    leaks: tuple[tuple[Row, ...], ...]
    conflicts: tuple[tuple[Row, ...], ...]
    groups: Mapping[str, Mapping[str, int]]
    rule: str | None
    unlabelled: tuple[Row, ...]
    outside: tuple[Row, ...]
    empty: Mapping[str, tuple[str, ...]]
    odd: tuple[Row, ...]
    reasons: tuple[str, ...]

    def clean(self, split: str) -> list[Row]:
        """The rows of a split that a clean list holds."""
        return [row for row in self.rows if row.split == split and row.left_out is None]


def audit(splits: Sequence[Split], facts: Mapping[str, VideoFacts], rules: Rules) -> Audit:
    """Judge a data set.

    A video is left out if it has no label or one that no class has, if its file has a problem or is too short, if an
    earlier line of its split has the same content, if the same content stands under different labels, or if a later
    split has it too. Splits count in the order given, except that the training split comes first: so it is training
    that gives up what it shares with validation.

    Args:
        splits: what there is.
        facts: what the files are, by the samples' keys; with digests where sizes are equal.
        rules: what is asked for.

    Raises:
        DataError: if the rule for recordings is no regular expression.
    """
    rule = _group_rule(splits, rules.groups)
    train = training_split(splits)
    order = {split.name: place for place, split in enumerate(sorted(splits, key=lambda split: split is not train))}
    rows = [
        Row(split.name, split.relative(sample.path), sample, facts[sample.key])
        for split in splits
        for sample in split.samples
    ]
    alike = _by_content(rows)
    conflicts = [places for places in alike if len({rows[place].sample.labels for place in places}) > 1]
    classes = _num_classes(splits) if rules.num_classes is None else rules.num_classes
    unlabelled = [place for place, row in enumerate(rows) if not row.sample.labels]
    outside = [place for place, row in enumerate(rows) if max(row.sample.labels, default=0) >= classes]
    marks: dict[int, str] = {}
    for places in alike:
        marks |= _marks_of_copies(rows, places, order)
    marks |= {place: "same content under another label" for places in conflicts for place in places}
    marks |= dict.fromkeys(outside, "label outside the classes")
    marks |= {place: mark for place, row in enumerate(rows) if (mark := _mark_of_file(row.facts, rules)) is not None}
    marks |= dict.fromkeys(unlabelled, "no label")  # of a line of another form, the path is not certain either
    rows = [replace(row, left_out=marks.get(place)) for place, row in enumerate(rows)]

    def pick(groups: Iterable[Iterable[int]]) -> tuple[tuple[Row, ...], ...]:
        return tuple(tuple(rows[place] for place in places) for places in groups)

    found = Audit(
        rows=tuple(rows),
        duplicates=pick(_within_splits(rows, alike)),
        leaks=pick(places for places in alike if len({rows[place].split for place in places}) > 1),
        conflicts=pick(conflicts),
        groups=_leaking_groups(rows, rule) if rule else {},
        rule=rule,
        unlabelled=tuple(rows[place] for place in unlabelled),
        outside=tuple(rows[place] for place in outside),
        empty={split.name: _empty_classes(split, rows, classes) for split in splits},
        odd=tuple(row for row in rows if _is_odd(row.facts)),
        reasons=(),
    )
    return replace(found, reasons=tuple(_reasons(found, splits, rules)))


def training_split(splits: Sequence[Split]) -> Split | None:
    """The one to train on: the first that is not called after validation or test."""
    return next((split for split in splits if not re.search(r"val|test", split.name, re.IGNORECASE)), None)


# ------------------------------------------------------------------------------------------ files


def _mark_of_file(facts: VideoFacts, rules: Rules) -> str | None:
    if facts.problem is not None:
        return facts.problem
    if facts.num_frames is not None and facts.num_frames < rules.min_frames:
        return "short"
    return None


def _is_odd(facts: VideoFacts) -> bool:
    if not facts.height or not facts.width:
        return False
    return max(facts.height, facts.width) / min(facts.height, facts.width) > _ODD_ASPECT


# ------------------------------------------------------------------------------------------ copies


def _by_content(rows: Sequence[Row]) -> list[list[int]]:
    """Places of the rows with equal content, where there are several."""
    places = defaultdict(list)
    for place, row in enumerate(rows):
        if row.facts.problem is None:
            places[row.facts.digest or row.sample.key].append(place)
    return [found for found in places.values() if len(found) > 1]


def _within_splits(rows: Sequence[Row], alike: Iterable[Sequence[int]]) -> list[list[int]]:
    found = []
    for places in alike:
        by_split = defaultdict(list)
        for place in places:
            by_split[rows[place].split].append(place)
        found += [own for own in by_split.values() if len(own) > 1]
    return found


def _marks_of_copies(rows: Sequence[Row], places: Sequence[int], order: Mapping[str, int]) -> dict[int, str]:
    """Why all of some equal videos but one are left out: the first in the last split stays."""
    last = max((rows[place].split for place in places), key=order.__getitem__)
    kept = next(place for place in places if rows[place].split == last)
    return {place: "duplicate" if rows[place].split == last else f"also in {last}" for place in places if place != kept}


# ------------------------------------------------------------------------------------------ recordings


def _group_rule(splits: Sequence[Split], asked: str | None) -> str | None:
    if asked == "none":
        return None
    if asked is not None:
        return GROUP_RULES.get(asked, asked)
    names = [_stem(sample.path) for split in splits for sample in split.samples]
    for rule in GROUP_RULES.values():
        if sum(re.search(rule, name) is not None for name in names) >= _RECOGNISED * len(names):
            return rule
    return None


def _leaking_groups(rows: Iterable[Row], rule: str) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if match := re.search(rule, _stem(row.path)):
            counts[match[0]][row.split] += 1
    return {group: dict(splits) for group, splits in counts.items() if len(splits) > 1}


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


# ------------------------------------------------------------------------------------------ labels and verdict


def _num_classes(splits: Iterable[Split]) -> int:
    """Number of classes: of those with names, where there are any."""
    named = [len(split.annotations.classes) for split in splits if split.annotations.classes]
    return max(named or [split.annotations.num_classes for split in splits])


def _empty_classes(split: Split, rows: Iterable[Row], classes: int) -> tuple[str, ...]:
    there = {label for row in rows if row.split == split.name and row.left_out is None for label in row.sample.labels}
    names = split.annotations.classes or tuple(map(str, range(classes)))
    return tuple(name for label, name in enumerate(names) if label not in there)


def _reasons(found: Audit, splits: Sequence[Split], rules: Rules) -> Iterable[str]:
    bad = [row for row in found.rows if row.left_out is not None]
    share = len(bad) / len(found.rows)
    if share > rules.max_bad_share:
        yield f"{len(bad)} of {len(found.rows)} videos ({share:.1%}) are unfit, more than {rules.max_bad_share:.1%}"
    if found.unlabelled:
        yield f"{_count(found.unlabelled, 'video')} without a label, such as {found.unlabelled[0]}"
    if found.outside:
        first = found.outside[0]
        yield f"{_count(found.outside, 'video')} with a label outside the classes, such as {first} ({_labels(first)})"
    if found.conflicts:
        both = " and ".join(f"{row} ({_labels(row)})" for row in _two_labels(found.conflicts[0]))
        yield f"{_count(found.conflicts, 'video')} under different labels, such as {both}"
    if found.groups:
        group, counts = next(iter(found.groups.items()))
        yield f"{_count(found.groups, 'recording')} in several splits, such as {group} in {' and '.join(counts)}"
    for split in splits:
        rows = [row for row in found.rows if row.split == split.name][:TRIED]
        if all(row.facts.problem == "missing" for row in rows):
            where = f"the first {TRIED} videos of {split.name}" if len(rows) == TRIED else f"all videos of {split.name}"
            yield f"{where} are missing, so training would refuse it"
    names = {split.annotations.classes for split in splits if split.annotations.classes}
    if len(names) > 1:
        yield "the splits do not have the same class names"
    train = training_split(splits)
    empty = found.empty[train.name] if train is not None else ()
    if train is not None and train.hollow:
        yield f"{_count(train.hollow, 'class folder')} without a video, such as {train.hollow[0]}"
        empty = tuple(name for name in empty if name not in train.hollow)
    if empty and not rules.allow_empty_classes:
        yield f"{_count(empty, 'class')} without a video to train on, such as {empty[0]}"


def _labels(row: Row) -> str:
    return "label " + " ".join(map(str, row.sample.labels))


def _two_labels(rows: Sequence[Row]) -> tuple[Row, Row]:
    first = rows[0]
    return first, next(row for row in rows if row.sample.labels != first.sample.labels)


def _count(found: Sequence[object] | Mapping[str, object], noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{len(found)} {noun}{plural if len(found) != 1 else ''}"
