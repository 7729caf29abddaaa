"""What `iwin data check` leaves behind: a report as JSON or Parquet, and clean lists."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from iwin.data.fingerprint import fingerprint
from iwin.errors import DataError, IwinError
from iwin.files import save_json, write_atomically
from iwin.prepare.audit import Audit, Row, Rules
from iwin.prepare.formats.writing import check_listable
from iwin.prepare.splits import Split, write_split

REPORT_SUFFIXES = (".json", ".parquet")


def report_of(found: Audit, splits: Sequence[Split], rules: Rules) -> dict[str, Any]:
    """The report as JSON has it.

    Its entries: "may_train" and "reasons"; "rules"; "splits", for each its number of videos, of those that are good,
    how many are left out for which reason, its fingerprint and its empty classes; "duplicates", "leaks" and
    "conflicts", lists of lists of "<split>: <path>"; "groups", the recordings in several splits; "unlabelled",
    "outside" and "odd", lists of "<split>: <path>"; "videos", an object for each line of each list.
    """
    return {
        "format": "iwin-data-check",
        "version": 1,
        "may_train": not found.reasons,
        "reasons": list(found.reasons),
        "rules": {
            "min_frames": rules.min_frames,
            "max_bad_share": rules.max_bad_share,
            "groups": found.rule,
            "num_classes": rules.num_classes,
        },
        "splits": {split.name: _split(found, split) for split in splits},
        "duplicates": _names(found.duplicates),
        "leaks": _names(found.leaks),
        "conflicts": _names(found.conflicts),
        "groups": {group: dict(counts) for group, counts in found.groups.items()},
        "unlabelled": [str(row) for row in found.unlabelled],
        "outside": [str(row) for row in found.outside],
        "odd": [str(row) for row in found.odd],
        "videos": [_video(row) for row in found.rows],
    }


def _split(found: Audit, split: Split) -> dict[str, Any]:
    return {
        "source": str(split.annotations.source),
        "videos": len(split.samples),
        "good": len(found.clean(split.name)),
        "left_out": dict(Counter(row.left_out for row in found.rows if row.split == split.name and row.left_out)),
        "fingerprint": fingerprint(split.annotations),
        "empty_classes": list(found.empty[split.name]),
    }


def _names(groups: Iterable[Iterable[Row]]) -> list[list[str]]:
    return [[str(row) for row in rows] for rows in groups]


def _video(row: Row) -> dict[str, Any]:
    facts = row.facts.to_dict()
    del facts["path"]
    return {
        "split": row.split,
        "path": row.path,
        "labels": list(row.sample.labels),
        "left_out": row.left_out,
        **facts,
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a report, atomically, in the form that the suffix says.

    A Parquet file has a row for each video; all else stands in its metadata under "iwin", as JSON.

    Raises:
        IwinError: if the file cannot be written, or is to be Parquet and PyArrow is not installed.
    """
    if path.suffix == ".json":
        save_json(path, report)
        return
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise IwinError(f"{path}: writing Parquet needs PyArrow: pip install pyarrow, or iwin[parquet]") from None
    rest = {name: value for name, value in report.items() if name != "videos"}
    schema = pa.schema(
        [pa.field(name, getattr(pa, kind)()) for name, kind in _COLUMNS.items()], metadata={"iwin": json.dumps(rest)}
    )
    videos = [{**_utf8(video), "labels": " ".join(map(str, video["labels"]))} for video in report["videos"]]
    write_atomically(path, lambda temporary: pq.write_table(pa.Table.from_pylist(videos, schema=schema), temporary))


def _utf8(video: dict[str, Any]) -> dict[str, Any]:
    """An entry whose texts show what is no UTF-8 in a file's name as JSON does, for Parquet holds none of it."""
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in video.items()
    }


_COLUMNS = {
    **dict.fromkeys(("split", "path", "labels", "left_out"), "string"),
    **dict.fromkeys(("size", "mtime_ns"), "int64"),
    **dict.fromkeys(("problem", "reason", "container", "codec"), "string"),
    **dict.fromkeys(("height", "width", "num_frames"), "int32"),
    **dict.fromkeys(("duration", "fps", "keyframe_interval"), "float64"),
    "digest": "string",
}
"""Columns of a Parquet report and their types in PyArrow."""


def clean_lists(path: Path, splits: Sequence[Split]) -> list[Path]:
    """Where `write_clean_lists` writes the lists of these splits.

    Args:
        path: the list, or with several splits a folder for `<split>.txt`.
        splits: what there is.

    Raises:
        DataError: if a list would replace one that is checked, or cannot hold the name of a video or class.
    """
    for split in splits:
        check_listable((split.relative(sample.path) for sample in split.samples), split.annotations.classes)
    paths = [path] if len(splits) == 1 else [path / f"{split.name}.txt" for split in splits]
    sources = {Path(split.annotations.source).resolve() for split in splits}
    if any(target.resolve() in sources for target in paths):
        raise DataError(f"--clean {path}: would replace the list that is checked; name another place")
    return paths


def write_clean_lists(path: Path, found: Audit, splits: Sequence[Split]) -> list[Path]:
    """Write the lists without what is left out; paths stand in them as they did.

    Args:
        path: as for `clean_lists`.
        found: what is left out.
        splits: what there is.

    Returns:
        The lists written.

    Raises:
        DataError: if a list would be empty, or replace one that is checked.
    """
    paths = clean_lists(path, splits)
    for split in splits:
        if not found.clean(split.name):
            raise DataError(f"--clean {path}: no video of {split.name} is good, so there is no list to write")
    for target, split in zip(paths, splits, strict=True):
        samples = [replace(row.sample, path=row.path) for row in found.clean(split.name)]
        write_split(target, samples, classes=split.annotations.classes, frames=split.frames)
    return paths
