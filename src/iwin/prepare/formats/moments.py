"""Moments in Time and Multi-Moments in Time (Monfort et al., arXiv 1801.03150 and 1911.00232)."""

import re
from collections.abc import Sequence
from pathlib import Path

from iwin.errors import DataError
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import Reading, Row
from iwin.prepare.formats.source import Source, head, lines_of, split_of, table_of

_ONE_LABEL = re.compile(r'"?(?P<path>(?P<name>[^/,"]+)/[^,]+\.\w+)"?,\s*"?(?P<label>[^,"]+)"?,\s*\d+,\s*\d+')
_MANY_LABELS = re.compile(r'"?[^,]+\.(mp4|webm|avi|mkv)"?(,\s*\d+)+')
_CATEGORIES = r".*categories\.txt"
_FOLDERS = {"train": "training", "val": "validation", "test": "testing"}


def _is(path: Path, line: re.Pattern[str]) -> bool:
    lines = head(path)[:50]
    return bool(split_of(path)) and bool(lines) and all(line.fullmatch(each) for each in lines)


def _categories(source: Source) -> tuple[str, ...]:
    files = source.beside(_CATEGORIES)
    if len(files) != 1:
        raise DataError(
            f"{source.folder}: needs the file that numbers the classes (moments_categories.txt) beside the lists"
        )
    numbers = {}
    for number, line in enumerate(lines_of(files[0]), 1):
        name, _, index = line.rpartition(",")
        if not name or not index.strip().isdecimal():
            raise DataError(f"{files[0]}:{number}: expected `name,number`, found {line!r}")
        numbers[name.strip().strip('"')] = int(index)
    classes = tuple(sorted(numbers, key=numbers.__getitem__))
    if [numbers[name] for name in classes] != list(range(len(classes))):
        raise DataError(f"{files[0]}: the classes are not numbered from 0 to {len(classes) - 1}")
    return classes


def _moments_files(source: Source) -> list[Path]:
    files = [path for path in source.named(r".*\.(csv|txt)") if _is(path, _ONE_LABEL)]
    return files if source.beside(_CATEGORIES) else []


def _moments_read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:  # noqa: ARG001
    reading = Reading({}, _categories(source))
    for path in files:
        split = split_of(path) or "train"
        for number, row in enumerate(table_of(path), 1):
            if len(row) < 2:
                raise DataError(f"{path}:{number}: expected a path and a label, found {','.join(row)!r}")
            # The same name can stand in training/ and in validation/.
            reading.add(split, Row((f"{_FOLDERS[split]}/{row[0]}", row[0]), (row[1],) if row[1] else ()))
    return reading


def _multi_files(source: Source) -> list[Path]:
    files = [path for path in source.named(r".*\.(csv|txt)") if _is(path, _MANY_LABELS)]
    return files if source.beside(_CATEGORIES) else []


def _multi_read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:  # noqa: ARG001
    reading = Reading({}, _categories(source))
    for path in files:
        for number, (name, *labels) in enumerate(table_of(path), 1):
            if not all(label.isdecimal() for label in labels):
                raise DataError(f"{path}:{number}: expected a path and class numbers, found {','.join(labels)!r}")
            reading.add(split_of(path) or "train", Row((name,), tuple(map(int, labels))))
    return reading


MOMENTS = Format(
    name="moments",
    title="Moments in Time lists",
    expects="trainingSet.csv and validationSet.csv, and moments_categories.txt",
    files=_moments_files,
    read=_moments_read,
    aliases=("mit", "moments-in-time"),
)

MULTI_MOMENTS = Format(
    name="multi-moments",
    title="Multi-Moments in Time lists, several labels a video",
    expects="trainingSet.csv and validationSet.csv with several class numbers a line, and *categories.txt",
    files=_multi_files,
    read=_multi_read,
    aliases=("mmit", "multi-moments-in-time"),
)
