"""Kinetics-400, 600 and 700: CSV or JSON of YouTube ids and times (Kay et al., arXiv 1705.06950)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iwin.errors import DataError
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import UNDIVIDED, Reading, Row
from iwin.prepare.formats.source import Source, head, json_of, split_named, split_of, table_of

COLUMNS = ("youtube_id", "time_start", "time_end")


class Clip(NamedTuple):
    """A clip as it stands in a file; the label is empty where it is not published."""

    label: str
    video: str
    start: str
    end: str
    split: str


_NO_HEADER = ("label", *COLUMNS, "split")

_BARE = re.compile(r'(?P<label>"[^"]+"|[^,]+),[\w-]{11},\d+(\.\d+)?,\d+(\.\d+)?(,[a-z]+)?(,\d)?')
"""A line of a file without a header."""

_JSON = re.compile(r'^\{\s*"[\w-]{11}"\s*:\s*\{.*"(annotations|segment|subset)"', re.DOTALL)


def _files(source: Source) -> list[Path]:
    return [path for path in source.given if _is_csv(path) or _is_json(path)]


def _is_csv(path: Path) -> bool:
    first = head(path)[:1]
    if path.suffix.lower() not in (".csv", ".txt") or not first:
        return False
    columns = {cell.strip().strip('"').lower() for cell in first[0].split(",")}
    return (set(COLUMNS) <= columns and "tags" not in columns) or _BARE.fullmatch(first[0]) is not None


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json" and _JSON.match("\n".join(head(path))[:4096]) is not None


def _read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:  # noqa: ARG001
    reading = Reading({}, replacements="replacement")
    for path in files:
        named = split_of(path)
        for number, (label, video, start, end, split) in enumerate(_clips(path), 1):
            try:
                times = f"{int(float(start)):06}_{int(float(end)):06}", f"{float(start):g}_{float(end):g}"
            except (OverflowError, ValueError):
                raise DataError(f"{path}: clip {number} ({video}) has no times; found {start!r} and {end!r}") from None
            names = [f"{video}_{time}" for time in times] + [video]
            ways = (*(f"{label}/{name}.mp4" for name in names[:1]), *(f"{name}.mp4" for name in names))
            row = Row(ways if label else ways[1:], (label,) if label else ())
            reading.add(split_named(split) or named or UNDIVIDED, row)
    count = len({row.labels for rows in reading.splits.values() for row in rows if row.labels})
    if not choice.named and count not in (400, 600, 700):
        reading.notes.append(
            f"{count} classes are annotated here, while Kinetics has 400, 600 or 700: give the names of all of them "
            "with --classes, so that the numbers are the published ones"
        )
    return reading


def _clips(path: Path) -> Iterator[Clip]:
    if path.suffix.lower() == ".json":
        yield from _json_clips(path)
        return
    table = table_of(path)
    columns = [cell.lower() for cell in table[0]] if table else []
    has_header = set(COLUMNS) <= set(columns)
    columns = columns if has_header else list(_NO_HEADER)
    for number, cells in enumerate(table[has_header:], 1 + has_header):
        row = dict(zip(columns, cells, strict=False))
        if any(not row.get(column) for column in COLUMNS):
            raise DataError(f"{path}:{number}: expected {', '.join(columns)}, found {','.join(cells)!r}")
        video, start, end = (row[column] for column in COLUMNS)
        yield Clip(row.get("label", ""), video, start, end, row.get("split", ""))


def _json_clips(path: Path) -> Iterator[Clip]:
    clips: dict[str, dict[str, Any]] = json_of(path)
    for video, clip in clips.items():
        told: dict[str, Any] = clip.get("annotations") or {}
        segment = told.get("segment") or clip.get("segment") or ("", "")
        yield Clip(str(told.get("label", "")), video, str(segment[0]), str(segment[1]), str(clip.get("subset", "")))


FORMAT = Format(
    name="kinetics",
    title="Kinetics CSV or JSON",
    expects="a CSV file with the columns label,youtube_id,time_start,time_end,split",
    files=_files,
    read=_read,
    aliases=("kinetics400", "kinetics600", "kinetics700"),
)
