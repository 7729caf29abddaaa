"""Annotation formats of data sets, and recognising them. One file a format or family; `FORMATS` lists them."""

import re
from collections.abc import Sequence
from pathlib import Path

from iwin.errors import DataError, did_you_mean
from iwin.prepare.formats import (
    activitynet,
    diving48,
    finegym,
    folders,
    hmdb51,
    hvu,
    kinetics,
    lists,
    moments,
    something,
    tables,
    ucf101,
)
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import Reading
from iwin.prepare.formats.source import Source, split_of

__all__ = ["FORMATS", "Choice", "Format", "Reading", "find_format", "read_annotations"]

_COMPANION = re.compile(r"class|label|categor|vocab|tags|answers|test")
"""Names of files that belong to lists and are none."""

FORMATS = (
    ucf101.FORMAT,
    hmdb51.FORMAT,
    kinetics.FORMAT,
    something.SOMETHING_V2,
    something.ID_LABEL,
    moments.MOMENTS,
    moments.MULTI_MOMENTS,
    hvu.FORMAT,
    finegym.GYM99,
    finegym.GYM288,
    activitynet.FORMAT,
    diving48.FORMAT,
    tables.VIDEO_FOLDER,
    folders.FORMAT,
    lists.FORMAT,
    tables.TABLE,
)


def read_annotations(
    paths: Sequence[Path], *, name: str | None = None, choice: Choice | None = None
) -> tuple[Format, Reading]:
    """Read the annotations of a data set, recognising their format.

    Args:
        paths: a folder, or one or several annotation files.
        name: the format; None recognises it.
        choice: what is wanted where they offer several things.

    Returns:
        The format, and what the annotations say.

    Raises:
        DataError: if the format is not known or not certain, or the files break its rules.
    """
    choice = choice or Choice()
    source = Source(tuple(paths), choice.path_column, choice.label_column)
    found, files = _named(source, name) if name else _recognised(source)
    over = [path for path in source.given if path not in files and not _COMPANION.search(path.name.lower())]
    if over and not source.paths[0].is_dir():
        raise DataError(f"{over[0]}: is not {found.title}, as {files[0]} is; read them one by one")
    told = [path.name for path in over if found in (lists.FORMAT, tables.TABLE) and split_of(path)]
    reading = found.read(source, files, choice)
    reading.notes += [f"{name} is passed over: it is not {found.title}" for name in told]
    if not any(row.labels for rows in reading.splits.values() for row in rows):
        raise DataError(f"{', '.join(map(str, paths))}: no video has a label there, as {found.title}")
    return found, reading


def find_format(name: str) -> Format:
    """The format of a name or another of its names.

    Raises:
        DataError: if there is none.
    """
    known = {each: one for one in FORMATS for each in (one.name, *one.aliases)}
    if name.lower() not in known:
        raise DataError(
            f"--format {name}: there is no such format{did_you_mean(name, known)}; "
            f"the formats are {', '.join(one.name for one in FORMATS)}"
        )
    return known[name.lower()]


def _named(source: Source, name: str) -> tuple[Format, Sequence[Path]]:
    chosen = find_format(name)
    files = chosen.files(source)
    if chosen is folders.FORMAT:
        files = files or folders.nested_files(source)
    if not files:
        raise DataError(f"{_place(source)}: is not {chosen.title}; expected {chosen.expects}")
    return chosen, files


def _recognised(source: Source) -> tuple[Format, Sequence[Path]]:
    found = [(one, files) for one in FORMATS if (files := one.files(source))]
    own = [pair for pair in found if not pair[0].is_general]
    candidates = own or found
    if not candidates and (nested := folders.nested_files(source)):
        return folders.FORMAT, nested
    if [one for one, _ in candidates] == [folders.FORMAT, lists.FORMAT] and lists.come_from_folders(candidates[1][1]):
        candidates = candidates[:1]
    elif len(candidates) > 1 and candidates[0][0] is folders.FORMAT and folders.hold_no_classes(source.folder):
        candidates = candidates[1:]
    if not candidates:
        raise DataError(
            f"{_place(source)}: holds no annotations of a known form; name the form with --format "
            f"({', '.join(one.name for one in FORMATS)}), which then says what it misses"
        )
    if len(candidates) > 1:
        readings = " or as ".join(
            f"{one.title} ({', '.join(path.name for path in files[:2])}{', …' * (len(files) > 2)})"
            for one, files in candidates
        )
        names = " or ".join(f"--format {one.name}" for one, _ in candidates)
        raise DataError(f"{_place(source)}: can be read as {readings}; say which with {names}")
    return candidates[0]


def _place(source: Source) -> str:
    return ", ".join(map(str, source.paths))
