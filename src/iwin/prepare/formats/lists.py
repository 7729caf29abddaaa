"""Plain lists: ours and mmaction2's, PySlowFast's and VideoMAE's "csv"; a path, then numbers or a class name."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from iwin.data.annotations import VIDEO_SUFFIXES, is_negative
from iwin.errors import DataError
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import UNDIVIDED, Label, Reading, Row
from iwin.prepare.formats.source import Source, head, lines_of, names_in, split_of

_NUMBERS = re.compile(r"(?P<path>.+?)(?P<numbers>((\s*,\s*|\s+)-?\d+)+)")
_QUOTED = re.compile(r'"(?P<path>[^"]+)"(?P<rest>.*)')

FRAME_COLUMNS = 3
"""The most numbers behind the path of a frame folder: first frame, frames, label."""


def _files(source: Source) -> list[Path]:
    """The files whose first lines all are lines of a list; in a folder, only those named after a split."""
    is_folder = source.paths[0].is_dir()
    found = source.named(r".*\.(txt|csv|tsv)")
    return [path for path in found if (split_of(path) or not is_folder) and is_list(path)]


def is_list(path: Path) -> bool:
    """Whether the first lines of a file all have a path and numbers, or a video's path and a class name."""
    lines = [line for line in head(path)[:200] if not line.startswith("#")]
    parts = [_parts(line) for line in lines]
    if not lines or any(part is None for part in parts):
        return False
    named = [part for part in parts if part is not None and isinstance(part[1][0], str)]
    return all(_is_video(name) for name, _ in named)


def _read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:  # noqa: ARG001
    reading = Reading({}, classes_beside(files[0]))
    for path in files:
        for row in read_list_rows(path):
            names = dict.fromkeys((row.names[0], *names_in(source, path, row.names[0])))
            reading.add(split_of(path) or UNDIVIDED, replace(row, names=tuple(names)))
    return reading


def read_list_rows(path: Path) -> list[Row]:
    """The rows of a list.

    Behind a video's path stand its labels; behind any other path, which may be a frame folder or a video without its
    ending, the last number is the label, and of three the first two say which frames. Class names may stand in the
    place of numbers. A negative number is no label.

    Raises:
        DataError: if a line is of another form, or there is none.
    """
    found: list[tuple[str, tuple[Label, ...]]] = []
    for number, line in enumerate(lines_of(path), 1):
        if line.startswith("#"):
            continue
        parts = _parts(line)
        if parts is None:
            raise DataError(f"{path}:{number}: expected a path and a label, found {line!r}")
        found.append(parts)
    if not found:
        raise DataError(f"{path}: the list names no video")
    if any(isinstance(label, str) for _, labels in found for label in labels):
        return [_named(name, labels) for name, labels in found]
    # A path of several words may end in a number: all lines have as many columns as the shortest.
    columns = min((len(numbers) for name, numbers in found if not _is_video(name)), default=0)
    return [_counted(name, [int(number) for number in numbers], columns) for name, numbers in found]


def _counted(name: str, numbers: Sequence[int], columns: int) -> Row:
    if _is_video(name):
        return Row((name,), tuple(label for label in numbers if label >= 0))
    extra = len(numbers) - min(columns, FRAME_COLUMNS)
    *frames, label = numbers[extra:]
    path = " ".join((name, *map(str, numbers[:extra])))
    return Row((path,), (label,) if label >= 0 else (), part=(frames[0], frames[1]) if len(frames) == 2 else None)


def _named(name: str, labels: tuple[Label, ...]) -> Row:
    *more, label = map(str, labels)
    return Row((" ".join((name, *more)),), () if is_negative(label) else (label,))


def _parts(line: str) -> tuple[str, tuple[Label, ...]] | None:
    """The path of a line and what stands behind it, or None if nothing does."""
    if quoted := _QUOTED.fullmatch(line):
        line = quoted["path"] + quoted["rest"]
    if match := _NUMBERS.fullmatch(line):
        return match["path"].strip(), tuple(int(number) for number in re.findall(r"-?\d+", match["numbers"]))
    separated = line.rsplit("," if "," in line else None, 1)
    if len(separated) != 2 or not separated[0].strip() or not separated[1].strip():
        return None
    return separated[0].strip(), (separated[1].strip().strip('"'),)


def _is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def come_from_folders(files: Sequence[Path]) -> bool:
    """Whether lists say of every video what its class folder says, as those that were made from the folders do."""
    classes = classes_beside(files[0]) or ()
    return all(
        isinstance(label, int) and label < len(classes) and classes[label] in PurePosixPath(row.names[0]).parts
        for path in files
        for row in read_list_rows(path)
        for label in row.labels
    )


def classes_beside(path: Path) -> tuple[str, ...] | None:
    """The class names in a classes.txt beside a list, a name a line."""
    beside = path.with_name("classes.txt")
    return tuple(lines_of(beside)) if beside.is_file() else None


FORMAT = Format(
    name="list",
    title="lists of `path label` lines",
    expects="text files of `path label` lines, named after their split",
    files=_files,
    read=_read,
    aliases=("pyslowfast", "videomae", "mmaction"),
    is_general=True,
)
