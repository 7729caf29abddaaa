"""ActivityNet: one JSON file of videos and timed activities (Caba Heilbron et al., CVPR 2015)."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iwin.errors import DataError
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import UNDIVIDED, Reading, Row
from iwin.prepare.formats.source import Source, head, json_of, split_named

_START = re.compile(r'^\s*\{[^{\[]*"(database|taxonomy)"\s*:\s*[\[{]')


def _files(source: Source) -> list[Path]:
    return [path for path in source.named(r".*\.json") if _START.match("\n".join(head(path))[:4096])]


def _read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:
    if len(files) > 1:
        raise DataError(f"{source.folder}: holds several versions of the annotations; name the file of one of them")
    value = json_of(files[0])
    if not isinstance(value.get("database"), dict):
        raise DataError(f"{files[0]}: has no `database` of videos")
    reading = Reading({})
    several = segments = 0
    for video, told in value["database"].items():
        try:
            activities = _activities(told)
            rows = _rows(video, activities, float(told["duration"]) if choice.segments else None)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise DataError(f"{files[0]}: the annotations of {video} are no list of labels with segments") from None
        segments += len(activities)
        several += len({activity.label for activity in activities}) > 1
        for row in rows:
            reading.add(split_named(str(told.get("subset", ""))) or UNDIVIDED, row)
    if choice.segments:
        reading.notes.append("every annotated segment is listed, as a part of its video's frame folder")
        listed = sum(row.span is not None for rows in reading.splits.values() for row in rows)
        if listed < segments:
            reading.notes.append(f"{segments - listed} segments that end before they start are left out")
    else:
        reading.notes.append(
            f"whole videos are listed with the label of their first segment ({several} have segments of several labels)"
        )
    return reading


class Activity(NamedTuple):
    """An activity in a video: its label, and where it starts and ends, in seconds."""

    label: str
    start: float
    end: float


def _activities(told: dict[str, Any]) -> list[Activity]:
    found = told.get("annotations") or []
    each = [found] if isinstance(found, dict) else found
    return [Activity(str(one["label"]), *map(float, one["segment"])) for one in each]


def _rows(video: str, activities: Sequence[Activity], length: float | None) -> list[Row]:
    """The whole video with its first label, or where its length is given, a row for each activity."""
    names = (f"v_{video}.mp4", f"{video}.mp4")
    if not activities:
        return [Row(names, ())]
    if length is None:
        return [Row(names, (activities[0].label,))]
    if not 0 < length < math.inf:
        raise ValueError(length)
    spans = [(one, (one.start, one.end, length)) for one in activities if 0 <= one.start < min(one.end, length)]
    return [Row(names, (one.label,), span) for one, span in spans]


FORMAT = Format(
    name="activitynet",
    title="ActivityNet JSON",
    expects="activity_net.v1-3.min.json",
    files=_files,
    read=_read,
)
