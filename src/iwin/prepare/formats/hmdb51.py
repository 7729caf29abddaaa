"""HMDB51: <class>_test_split<N>.txt, a file for each class and division (Kuehne et al., ICCV 2011)."""

import re
from collections.abc import Sequence
from pathlib import Path

from iwin.errors import DataError
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import Reading, Row
from iwin.prepare.formats.source import Source, lines_of

_LIST = r"(?P<name>.+)_test_split(?P<fold>[1-9])\.txt"

_USES = {"0": None, "1": "train", "2": "val"}
"""What the number behind a video means. 2 is the published test part, which is what is evaluated."""


def _files(source: Source) -> list[Path]:
    return source.named(_LIST)


def _read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:
    chosen = {}
    for path in files:
        match = re.fullmatch(_LIST, path.name, re.IGNORECASE)
        if match and int(match["fold"]) == choice.fold:
            chosen[match["name"]] = path
    if not chosen:
        raise DataError(f"{source.folder}: has no *_test_split{choice.fold}.txt; HMDB51 has the divisions 1, 2 and 3")
    classes = tuple(sorted(chosen))
    reading = Reading({}, classes, ignore_case=True)
    for name in classes:
        for number, line in enumerate(lines_of(chosen[name]), 1):  # a # at the start belongs to the file's name
            video, _, use = line.rpartition(" ")
            if use not in _USES or not video.strip():
                raise DataError(f"{chosen[name]}:{number}: expected `<video> <0, 1 or 2>`, found {line!r}")
            if split := _USES[use]:
                video = video.strip()
                reading.add(split, Row((f"{name}/{video}", video), (name,)))
    reading.notes.append(f"division {choice.fold}; val is its test part")
    return reading


FORMAT = Format(
    name="hmdb51",
    title="HMDB51 lists",
    expects="<class>_test_split1.txt for every class",
    files=_files,
    read=_read,
)
