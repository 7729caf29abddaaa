"""From annotations to list files: find the videos on disk, divide what is not divided, write."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from iwin.errors import DataError
from iwin.files import write_atomically
from iwin.prepare.formats.library import Library
from iwin.prepare.formats.rows import UNDIVIDED, Reading, Row, squashed


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a list.

    Attributes:
        path: the video or frame folder, relative to the folder of videos.
        labels: its classes, counted from 0.
        frames: of a frame folder, how many frames; and before it the first of them, where it is not the folder's.
    """

    path: str
    labels: tuple[int, ...]
    frames: tuple[int, ...] = ()

    @property
    def line(self) -> str:
        """The line, without its end.

        Raises:
            DataError: if the path has a line break, or characters that are no text.
        """
        check_listable([self.path])
        # A line that begins with # would be a comment, and blanks at its start would be lost.
        path = f"./{self.path}" if self.path.startswith("#") or self.path[:1].isspace() else self.path
        return " ".join((path, *map(str, (*self.frames, *self.labels))))


@dataclass
class Split:
    """What became of the rows of a split.

    Attributes:
        listed: how many videos the annotations name, without those that have no label.
        entries: the lines of the list.
        missing: names of videos that are not on disk.
        unclear: names of videos that several files may be, with two of them.
        unlabelled: how many videos have no label.
        repeated: how many rows say what another one says.
        conflicts: paths that two rows give different labels; the first one is kept.
        elsewhere: names of videos that lie in folders which their annotations do not name, with what was taken.
        beyond: paths of frame folders that hold fewer frames than their annotations name.
    """

    listed: int = 0
    entries: list[Entry] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unclear: list[tuple[str, str, str]] = field(default_factory=list)
    unlabelled: int = 0
    repeated: int = 0
    conflicts: list[str] = field(default_factory=list)
    elsewhere: list[tuple[str, str]] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        """How many of the listed videos are on disk."""
        return self.listed - len(self.missing) - len(self.unclear)

    def per_class(self) -> Counter[int]:
        """Number of lines of each class that has any."""
        return Counter(label for entry in self.entries for label in entry.labels)


def resolve(reading: Reading, library: Library, *, frames: bool, keep_missing: bool = False) -> dict[str, Split]:
    """Find the videos of numbered rows on disk.

    Args:
        reading: rows with numbers for labels.
        library: what is on disk.
        frames: whether they are frame folders.
        keep_missing: keep lines for videos that are not there, by their likeliest name.
    """
    finder = _Finder(reading, library, frames=frames)
    return {name: finder.split(name, rows, keep_missing=keep_missing) for name, rows in reading.splits.items()}


class _Finder:
    def __init__(self, reading: Reading, library: Library, *, frames: bool) -> None:
        self.reading, self.library, self.frames = reading, library, frames
        self.folders = {squashed(name) for name in reading.classes or ()}
        self.instead = library.in_folder(reading.replacements) if reading.replacements and not frames else {}

    def split(self, name: str, rows: Sequence[Row], *, keep_missing: bool) -> Split:
        words = {"val", "test"} if name == "val" and "test" not in self.reading.splits else {name}
        split = Split()
        seen: dict[tuple[str, tuple[int, ...], object], Entry] = {}
        for row in rows:
            if not row.labels:
                split.unlabelled += 1
                continue
            paths = self._paths(row, splits=words if name else ())
            entry = self._entry(row, paths[0] if len(paths) == 1 else row.names[0], is_there=len(paths) == 1)
            before = seen.setdefault((entry.path, entry.frames, row.part if self.frames else None), entry)
            if before is not entry:
                split.repeated += 1
                if before.labels != entry.labels:
                    split.conflicts.append(entry.path)
                continue
            split.listed += 1
            if len(paths) > 1:
                split.unclear.append((row.names[0], paths[0], paths[1]))
            elif not paths:
                split.missing.append(row.names[0])
            elif "/" not in row.names[0] and "/" in paths[0]:
                split.elsewhere.append((row.names[0], paths[0]))
            if row.part and entry.frames and sum(row.part) > self.library.frames_of(entry.path).count:
                split.beyond.append(entry.path)
            if len(paths) == 1 or (keep_missing and not paths):
                split.entries.append(entry)
        return split

    def _paths(self, row: Row, *, splits: Collection[str]) -> list[str]:
        if instead := self.instead.get(PurePosixPath(row.names[0]).stem):
            return [instead]
        found = self.library.find(row.names, splits=splits, frames=self.frames, ignore_case=self.reading.ignore_case)
        return [path for path in found if not self._is_in_another_class(row, path)]

    def _entry(self, row: Row, path: str, *, is_there: bool) -> Entry:
        labels = tuple(int(label) for label in row.labels)
        if not (self.frames and is_there):
            return Entry(path, labels)
        if row.part is not None:
            return Entry(path, labels, row.part)
        count = self.library.frames_of(path).count
        if row.span is None:
            return Entry(path, labels, (count,))
        start, end, length = row.span
        first = min(max(round(start / length * count), 0), count - 1)
        return Entry(path, labels, (first, max(1, min(round(end / length * count), count) - first)))

    def _is_in_another_class(self, row: Row, path: str) -> bool:
        """Whether a file that only its bare name points to lies in the folder of another class."""
        own = PurePosixPath(row.names[0]).parent.name
        there = squashed(PurePosixPath(path).parent.name)
        return bool(own) and there != squashed(own) and there in self.folders


def divide(
    entries: Sequence[Entry], *, val_share: float, seed: int, names: Sequence[str] | None = None
) -> dict[str, list[Entry]]:
    """Videos for training and for validation: of each class at random, and of a class with one video, for training.

    Args:
        entries: the videos.
        val_share: share of each class for validation, from 0 to below 1.
        seed: seed of the division.
        names: class names; with them the division of a class does not depend on its number.
    """
    by_label: dict[str, list[Entry]] = {}
    for entry in entries:
        label = entry.labels[0]
        by_label.setdefault(names[label] if names else str(label), []).append(entry)
    val = set()
    for label_name, videos in sorted(by_label.items()):
        count = 0 if val_share == 0 or len(videos) == 1 else max(1, round(val_share * len(videos)))
        rng = np.random.default_rng([seed, *label_name.encode()])
        val |= {videos[index] for index in rng.permutation(len(videos))[: min(count, len(videos) - 1)]}
    divided = {"train": [entry for entry in entries if entry not in val]}
    return divided | {"val": [entry for entry in entries if entry in val]} if val else divided


def divided(
    splits: Mapping[str, Split], *, val_share: float, seed: int, names: Sequence[str] | None
) -> dict[str, list[Entry]]:
    """The lines of each list; those of no split are divided into training and validation."""
    lists = {name: list(split.entries) for name, split in splits.items() if name != UNDIVIDED}
    if UNDIVIDED in splits:
        for name, part in divide(splits[UNDIVIDED].entries, val_share=val_share, seed=seed, names=names).items():
            lists.setdefault(name, []).extend(part)
    return lists


def check_listable(paths: Iterable[str], classes: Iterable[str] | None = None) -> None:
    """Say before the work, not after it, that a list or a file of class names cannot hold a name.

    Raises:
        DataError: naming the first that has a line break, or characters that are no text.
    """
    for path in paths:
        if flaw := _flaw(path):
            raise DataError(f"{path!r}: a list cannot hold a path {flaw}; rename it")
    for name in classes or ():
        if flaw := _flaw(name):
            raise DataError(f"{name!r}: a list cannot hold the name of a class {flaw}; rename it")


def _flaw(name: str) -> str | None:
    if "\n" in name or "\r" in name:
        return "with a line break"
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        return "that is no UTF-8"
    return None


def write_list(path: Path, entries: Sequence[Entry], *, seed: int | None = None) -> None:
    """Write a list, whole or not at all; in random order where there is a seed."""
    lines = [entry.line for entry in entries]
    if seed is not None:
        lines = [lines[index] for index in np.random.default_rng(seed).permutation(len(lines))]
    _write(path, lines)


def write_names(path: Path, names: Sequence[str]) -> None:
    """Write names, a name a line, whole or not at all.

    Raises:
        DataError: if a name has a line break, or characters that are no text.
    """
    for name in names:
        if flaw := _flaw(name):
            raise DataError(f"{path}: cannot hold the name {name!r} {flaw}")
    _write(path, names)


def _write(path: Path, lines: Sequence[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))
