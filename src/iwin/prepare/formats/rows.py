"""What annotation files say, in one form for all of them: rows of names and labels, by split."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from iwin.errors import DataError, did_you_mean

Label = str | int

UNDIVIDED = ""
"""The name of the split of a source that does not divide its videos."""


@dataclass(frozen=True, slots=True)
class Row:
    """A video, or a part of one, as an annotation file tells of it.

    Attributes:
        names: what its file or frame folder may be called, the likeliest first and with an ending. A name with a
            slash must agree with the folders on disk; a bare one may lie anywhere.
        labels: its classes, by name or counted from 0; empty where the file does not tell.
        span: start, end and the whole video's length in seconds, for a part of a video.
        part: how many frames come before it and how many it has, for a part of a frame folder.
    """

    names: tuple[str, ...]
    labels: tuple[Label, ...]
    span: tuple[float, float, float] | None = None
    part: tuple[int, int] | None = None


@dataclass
class Reading:
    """All that the annotation files of a data set say.

    Attributes:
        splits: rows by split: train, val, test, or `UNDIVIDED`.
        classes: class names in the order of the labels, where the files give one.
        ignore_case: whether files on disk may differ from their names in capitals.
        notes: what the reader should be told.
        replacements: the name of a folder whose videos go in the place of others of the same name.
    """

    splits: dict[str, list[Row]]
    classes: tuple[str, ...] | None = None
    ignore_case: bool = False
    notes: list[str] = field(default_factory=list)
    replacements: str | None = None

    def add(self, split: str, row: Row) -> None:
        """Add a row to a split."""
        self.splits.setdefault(split, []).append(row)


def numbered(reading: Reading, *, classes: Sequence[str] | None = None) -> Reading:
    """The same rows with numbers for labels, and the class names in that order.

    Names are numbered in the order of `classes`, or else in that of the source, or else in alphabetical order. A name
    that differs from a class in capitals, blanks and punctuation alone is that class.

    Raises:
        DataError: if a label is none of the classes.
    """
    rows = [row for split in reading.splits.values() for row in split]
    own = reading.classes
    by_name = any(isinstance(label, str) for row in rows for label in row.labels)
    if by_name:
        names = tuple(classes or own or sorted({str(label) for row in rows for label in row.labels}))
    elif classes and own:  # the source's numbers, in another order of the same names
        names = tuple(classes)
    else:
        names = tuple(classes or own or ())
    table = _Numbers(names, own=own if classes and not by_name else None)
    splits = {
        split: [replace(row, labels=tuple(dict.fromkeys(map(table.of, row.labels)))) for row in found]
        for split, found in reading.splits.items()
    }
    lowest = min((int(label) for found in splits.values() for row in found for label in row.labels), default=0)
    notes = list(reading.notes)
    if lowest > 0 and not names:
        notes.append(
            f"the smallest label is {lowest}, while labels count from 0: where they count from 1 here, take 1 off each"
        )
    return replace(reading, splits=splits, classes=names or None, notes=notes)


class _Numbers:
    """From labels to numbers: by name, or counted; `own` names the counted labels of the source."""

    def __init__(self, names: Sequence[str], *, own: Sequence[str] | None) -> None:
        self.names, self.own = names, own
        self.exact = {name: number for number, name in enumerate(names)}
        self.twice = {name for number, name in enumerate(names) if self.exact[name] != number}
        self.loose: dict[str, set[int]] = {}
        for number, name in enumerate(names):
            self.loose.setdefault(squashed(name), set()).add(number)

    def of(self, label: Label) -> int:
        if isinstance(label, int) and self.own and label < len(self.own):
            label = self.own[label]
        if isinstance(label, int):
            if self.names and not 0 <= label < len(self.names):
                raise DataError(
                    f"there is a label {label}, but {len(self.names)} class names (labels count from 0); "
                    "give the names of all classes with --classes"
                )
            return label
        if label in self.twice:
            raise DataError(f"the class name {label!r} stands twice among the classes; a name must mean one class")
        if label in self.exact:
            return self.exact[label]
        near = self.loose.get(squashed(label), set())
        if len(near) != 1:
            raise DataError(
                f"the label {label!r} is none of the {len(self.names)} classes{did_you_mean(label, self.names)}; "
                "give the names of all classes with --classes"
            )
        return next(iter(near))


@lru_cache(maxsize=1 << 16)
def squashed(name: str) -> str:
    """A name without capitals, blanks and punctuation: what is left where data sets spell a class in two ways."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", name).casefold())
