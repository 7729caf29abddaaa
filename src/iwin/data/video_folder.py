"""Folders of videos with a metadata table, the layout of Hugging Face's VideoFolder.

train/metadata.csv        file_name,label
train/a.mp4               a.mp4,rise
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from iwin.data.annotations import LABEL_COLUMNS, SPLIT_NAMES, Annotations, label_samples, labels_in, text_lines
from iwin.data.sources import beside, exists, join, path_in, read_bytes
from iwin.errors import DataError

METADATA = ("metadata.csv", "metadata.jsonl")


class Table(NamedTuple):
    """A metadata table.

    Attributes:
        path: where it is: a path or an address.
        below: what the paths in it begin with that belong to the split; empty if all do.
    """

    path: str
    below: str = ""


def find_table(root: str | Path) -> Table | None:
    """The metadata table of a split's folder: in it, or in the folder above for all splits; None if there is none."""
    folder = str(root)
    name = path_in(folder).name
    tables = [Table(join(folder, table)) for table in METADATA]
    if any(name in names for names in SPLIT_NAMES):
        tables += [Table(beside(folder, table), f"{name}/") for table in METADATA]
    return next((table for table in tables if exists(table.path)), None)


def read_video_folder(
    table: Table, *, classes: Sequence[str] | None = None, multi_label: bool = False, strict: bool = True
) -> Annotations:
    """Read the samples of a metadata table.

    The column `file_name` tells the video, relative to the table; the first of LABEL_COLUMNS its label: a number, a
    class name, or a list of such in a .jsonl table. Without such a column the folder that a video lies in is its class.

    Args:
        table: the table.
        classes: class names by label when they are known already (a validation split takes the training split's).
        multi_label: whether a row can have several labels.
        strict: whether unknown classes and rows without a label are refused (see `label_samples`).

    Raises:
        DataError: if the table cannot be used.
    """
    path, below = table
    rows = list(_read_rows(path))
    columns = [str(name) for name in rows[0]] if rows else []
    file_name = next((name for name in columns if name == "file_name" or name.endswith("_file_name")), None)
    if file_name is None:
        raise DataError(f"{path}: has no column file_name; it has {', '.join(columns) or 'none'}")
    label = next((name for name in LABEL_COLUMNS if name in columns), None)
    videos = [(str(row[file_name]), row) for row in rows if str(row[file_name]).startswith(below)]
    if not videos:
        raise DataError(f"{path}: names no video below {below}; its file_name column holds paths relative to the table")
    return label_samples(
        [
            (beside(path, name), labels_in(row[label] if label else PurePosixPath(name).parent.name), None)
            for name, row in videos
        ],
        source=path,
        classes=classes,
        multi_label=multi_label,
        strict=strict,
    )


def _read_rows(path: str) -> Iterator[dict[str, Any]]:
    try:
        text = read_bytes(path).decode("utf-8-sig")
        if path_in(path).suffix == ".csv":
            yield from csv.DictReader(io.StringIO(text))
            return
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from None
    for number, line in enumerate(text_lines(text), 1):
        if line.strip():
            yield _json_row(line, f"{path}:{number}")


def _json_row(line: str, where: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: is not a line of JSON ({error.msg} at column {error.colno}); mend it") from None
    except (ValueError, TypeError):
        raise DataError(f'{where}: expected a JSON object such as {{"file_name": "1.mp4"}}, found {line!r}') from None
