"""Tables with a column of paths and one of labels: CSV, JSON, JSON lines; Hugging Face's metadata files are such."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from iwin.data.annotations import VIDEO_SUFFIXES, is_negative
from iwin.errors import DataError
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import UNDIVIDED, Label, Reading, Row
from iwin.prepare.formats.source import Source, head, json_of, names_in, split_named, split_of, table_of

PATH_COLUMNS = (
    *("file_name", "filename", "file_path", "filepath", "video_path", "clip_path", "path", "file", "frame_dir"),
    *("video", "video_name", "clip", "clip_name", "video_id", "vid"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "class_name", "class_label", "action", "activity", "category", "target"),
    *("label_name", "label_id", "class_id"),
)
SPLIT_COLUMNS = ("split", "subset", "set", "usage")

_DELIMITERS = ",\t;|"


def _files(source: Source) -> list[Path]:
    return [path for path in source.given if has_columns(path, source.path_column, source.label_column)]


def _metadata_files(source: Source) -> list[Path]:
    metadata = source.named(r"metadata\.(csv|jsonl)")
    return [path for path in metadata if has_columns(path, source.path_column, source.label_column)]


def has_columns(path: Path, path_column: str | None = None, label_column: str | None = None) -> bool:
    """Whether a file is a table: its first line or object names a column of paths and one of labels.

    Args:
        path: the file.
        path_column: a name that the first may have beside the usual ones.
        label_column: a name that the second may have beside the usual ones.
    """
    lines = head(path)
    if not lines:
        return False
    if path.suffix.lower() in (".json", ".jsonl"):
        columns = _first_keys("\n".join(lines))
    else:
        columns = {cell.strip().strip('"').lower() for cell in lines[0].split(_delimiter(lines[0]))}
    return not (
        columns.isdisjoint((*PATH_COLUMNS, path_column and path_column.lower()))
        or columns.isdisjoint((*LABEL_COLUMNS, label_column and label_column.lower()))
    )


def _first_keys(text: str) -> set[str]:
    """The keys of the first object in a JSON text."""
    start = text.find("{")
    if start < 0 or text[:start].strip() not in ("", "["):
        return set()
    try:
        value, _ = json.JSONDecoder().raw_decode(text[start:])
    except json.JSONDecodeError:
        return set()
    return {str(key).lower() for key in value}


def _delimiter(line: str) -> str:
    return max(_DELIMITERS, key=line.count)


def _read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:
    reading = Reading({})
    for path in files:
        rows = _records(path)
        if not rows:
            continue
        column = _column(path, rows, PATH_COLUMNS, choice.path_column, option="path")
        label = _column(path, rows, LABEL_COLUMNS, choice.label_column, option="label")
        split = next((name for name in SPLIT_COLUMNS if rows[0].get(name)), None)
        in_folder = split_of(path) or split_named(path.parent.name) or UNDIVIDED
        for number, row in enumerate(rows, 1):
            name = str(row.get(column) or "").strip()
            if not name:
                raise DataError(f"{path}: row {number} has no {column}")
            own = in_folder if split is None else _split(path, split, str(row.get(split)))
            reading.add(own, Row(names_in(source, path, name), _labels(row.get(label))))
    if all(_is_number(label) for rows in reading.splits.values() for row in rows for label in row.labels):
        for name, found in reading.splits.items():
            reading.splits[name] = [Row(row.names, tuple(int(label) for label in row.labels)) for row in found]
    return reading


def _is_number(label: Label) -> bool:
    return isinstance(label, int) or label.isdecimal()


def _labels(value: Any) -> tuple[Label, ...]:
    values = value if isinstance(value, list) else [value]
    given = [each if isinstance(each, int) else str(each).strip() for each in values if each not in (None, "")]
    return tuple(each for each in given if not is_negative(str(each)))


def _split(path: Path, column: str, value: str) -> str:
    split = split_named(value)
    if split is None:
        raise DataError(f"{path}: the column {column!r} has {value!r}, which is no split; write train, val or test")
    return split


def _records(path: Path) -> list[Mapping[str, Any]]:
    if path.suffix.lower() in (".json", ".jsonl"):
        value = json_of(path)
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise DataError(f"{path}: expected a JSON list of objects, one a video")
        return [{str(key).lower(): inner for key, inner in row.items()} for row in value]
    columns, *rows = table_of(path, delimiter=_delimiter(head(path)[0]))
    names = [name.lower() for name in columns]
    for number, row in enumerate(rows, 2):
        if len(row) > len(names):
            raise DataError(f"{path}:{number}: has {len(row)} columns, but there are {len(names)} in the first line")
    return [dict(zip(names, row, strict=False)) for row in rows]


def _column(
    path: Path, rows: Sequence[Mapping[str, Any]], known: Sequence[str], given: str | None, *, option: str
) -> str:
    """The column that is given, or the only one that it can be."""
    if given is not None:
        if given.lower() not in rows[0]:
            raise DataError(f"{path}: has no column {given!r}; it has {', '.join(rows[0])}")
        return given.lower()
    found = [name for name in known if name in rows[0]]
    if option == "path" and len(found) > 1:  # names of files are meant, not names of videos
        suffixes = {name: PurePosixPath(str(rows[0][name])).suffix.lower() for name in found}
        found = [name for name in found if suffixes[name] in VIDEO_SUFFIXES] or found
    if len(found) != 1:
        raise DataError(
            f"{path}: {' and '.join(found) or 'no column'} may be the {option}; name it with --{option}-column "
            f"(the columns are {', '.join(rows[0])})"
        )
    return found[0]


TABLE = Format(
    name="table",
    title="CSV or JSON tables",
    expects="CSV, JSON or JSON lines with a column of paths (file_name, or what --path-column names) and one of labels "
    "(label, or what --label-column names)",
    files=_files,
    read=_read,
    aliases=("csv", "json"),
    is_general=True,
)

VIDEO_FOLDER = Format(
    name="videofolder",
    title="Hugging Face VideoFolder metadata",
    expects="metadata.csv or metadata.jsonl with the columns file_name and label",
    files=_metadata_files,
    read=_read,
)
