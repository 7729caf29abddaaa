"""The text files of a source, read without trusting their encoding, line ends or quotes."""

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from iwin.data.annotations import text_lines
from iwin.errors import DataError

TEXT_SUFFIXES = frozenset({".csv", ".json", ".jsonl", ".tsv", ".txt"})

_HEAD_BYTES = 1 << 16

_DEPTH = 2
"""Folders below a source that are searched for annotation files."""

_MANY = 64
"""A folder with more folders than that holds videos, not annotations; it is not searched further."""

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainlist", "trainset", "trainingset"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "vallist", "valset", "validationset", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testlist", "testset"), "test"),
}


@dataclass(frozen=True)
class Source:
    """Where annotations are looked for.

    Attributes:
        paths: a folder, or one or several files.
        path_column: the column of a table that names the videos; None for one of the usual names.
        label_column: the column of a table that holds the labels; None for one of the usual names.
    """

    paths: tuple[Path, ...]
    path_column: str | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is not there.

        Raises:
            DataError: if there is no such file or folder, or folders and files are mixed.
        """
        for path in self.paths:
            if not path.exists():
                raise DataError(f"{path}: there is no such folder or file")
        if len(self.paths) > 1 and any(path.is_dir() for path in self.paths):
            raise DataError("name one folder, or the annotation files themselves")

    @property
    def folder(self) -> Path:
        """The folder given, or the one of the first file."""
        first = self.paths[0]
        return first if first.is_dir() else first.parent

    @cached_property
    def given(self) -> tuple[Path, ...]:
        """The files to read: those named, or all text files in and just below the folder."""
        return self.around if self.paths[0].is_dir() else self.paths

    @cached_property
    def around(self) -> tuple[Path, ...]:
        """The text files that may belong to them: those in and just below the folder."""
        depth = _DEPTH if self.paths[0].is_dir() else 0
        folders = [self.folder] if self.paths[0].is_dir() else sorted({path.parent for path in self.paths})
        return tuple(text for folder in folders for text in _texts(folder, depth))

    def named(self, pattern: str) -> list[Path]:
        """The files to read whose names match a regular expression, capitals aside."""
        return [path for path in self.given if re.fullmatch(pattern, path.name, re.IGNORECASE)]

    def beside(self, pattern: str) -> list[Path]:
        """The files around whose names match a regular expression, capitals aside."""
        return [path for path in self.around if re.fullmatch(pattern, path.name, re.IGNORECASE)]


def _texts(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be searched ({error.strerror})") from None
    paths = [Path(entry.path) for entry in found]  # a path's is_dir, unlike an entry's, bears a link to itself
    yield from (path for path in paths if path.suffix.lower() in TEXT_SUFFIXES and path.is_file())
    folders = [path for path in paths if path.is_dir()]
    if depth and len(folders) <= _MANY:
        for below in folders:
            yield from _texts(below, depth - 1)


def split_of(path: Path) -> str | None:
    """The one split that the words of a file's name speak of (train, val or test), or None."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", path.stem).lower())
    splits = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return splits.pop() if len(splits) == 1 else None


def split_named(word: str) -> str | None:
    """The split that a word means, or None."""
    return _SPLIT_WORDS.get(word.strip().lower())


def names_in(source: Source, path: Path, name: str) -> tuple[str, ...]:
    """What a name in an annotation file may mean: from the source's folder on, as it stands, from that file on."""
    beside = path.absolute().parent / name.replace("\\", "/").lstrip("/")
    inside = os.path.relpath(beside, source.folder.absolute())
    return tuple(dict.fromkeys((inside, name, str(beside))))


# ---------------------------------------------------------------------------------------------- reading


def head(path: Path) -> tuple[str, ...]:
    """The first lines of a file, for recognising it; bytes that are no text are replaced."""
    status = path.stat()
    return _head(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _head(path: Path, _time: int, _size: int) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            start = file.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path}: the list cannot be read ({error.strerror})") from None
    whole = len(start) < _HEAD_BYTES
    lines = _lines(start.decode(_encoding(start), errors="replace"))
    return tuple(lines if whole else lines[:-1] or lines)


def lines_of(path: Path) -> list[str]:
    """All lines of a file that are not empty, without blanks around them.

    Raises:
        DataError: if it cannot be read as text.
    """
    return _lines(_text(path))


def table_of(path: Path, *, delimiter: str = ",") -> list[list[str]]:
    """The rows of a CSV file, quotes and line ends aside; rows without content are left out.

    Raises:
        DataError: if it cannot be read as CSV.
    """
    try:
        rows = list(csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None
    stripped = [[cell.strip() for cell in row] for row in rows]
    return [row for row in stripped if any(row)]


def json_of(path: Path) -> Any:
    """The value that a JSON file holds; of a file with a value a line, the list of them.

    Raises:
        DataError: if it is not JSON.
    """
    text = _text(path)
    try:
        if path.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in _lines(text)]
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: is not JSON ({error.msg})") from None


def records_of(path: Path, value: Any, keys: Sequence[str]) -> list[dict[str, Any]]:
    """A JSON value as a list of objects that have these keys.

    Raises:
        DataError: naming the first that is none.
    """
    if not isinstance(value, list):
        raise DataError(f"{path}: expected a JSON list of videos")
    for number, record in enumerate(value, 1):
        if not isinstance(record, dict) or not set(keys) <= record.keys():
            raise DataError(f"{path}: video {number} of the list has no {' and no '.join(keys)}")
    return value


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return content.decode(_encoding(content))
    except OSError as error:
        raise DataError(f"{path}: the list cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: the list cannot be read (it is no text in UTF-8)") from None


def _encoding(content: bytes) -> str:
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return "utf-16" if is_utf16 else "utf-8-sig"


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text_lines(text)) if line]
