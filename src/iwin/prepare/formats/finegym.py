"""FineGYM: lists of gymnastic elements, Gym99 and Gym288 (Shao et al., arXiv 2004.06704)."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from iwin.errors import DataError
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import Reading, Row
from iwin.prepare.formats.source import Source, head, lines_of, split_of

_ELEMENT = re.compile(r"(?P<name>[\w-]{11}_E_\d+_\d+_A_\d+_\d+)\s+(?P<label>\d+)")
_CATEGORY = re.compile(r"Clabel:\s*(?P<label>\d+)\s*;.*;\s*Glabel:\s*\d+\s*;\s*(?P<name>.+)")


def _files_of(size: int) -> Callable[[Source], list[Path]]:
    def files(source: Source) -> list[Path]:
        lists = [path for path in source.named(r".*\.txt") if _ELEMENT.fullmatch((*head(path), "")[0])]
        return [path for path in lists if re.search(rf"gym{size}(?!\d)", path.name, re.IGNORECASE)]

    return files


def _reader_of(size: int) -> Callable[[Source, Sequence[Path], Choice], Reading]:
    def read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:  # noqa: ARG001
        named = source.beside(rf".*gym{size}.*categor.*\.txt") or source.beside(rf".*label_map_gym{size}\.txt")
        reading = Reading({}, _categories(named[0]) if named else None)
        for path in files:
            split = split_of(path)
            if split is None:
                raise DataError(f"{path}: neither train nor val is in its name, so its split is not known")
            for number, line in enumerate(lines_of(path), 1):
                match = _ELEMENT.fullmatch(line)
                if match is None:
                    raise DataError(f"{path}:{number}: expected an element and its label, found {line!r}")
                reading.add(split, Row((f"{match['name']}.mp4",), (int(match["label"]),)))
        if not named:
            reading.notes.append(f"there is no gym{size}_categories.txt beside the lists; the classes have no names")
        return reading

    return read


def _categories(path: Path) -> tuple[str, ...]:
    names = []
    for number, line in enumerate(lines_of(path)):
        match = _CATEGORY.fullmatch(line)
        if match is None or int(match["label"]) != number:
            raise DataError(f"{path}:{number + 1}: expected `Clabel: {number}; set: …; Glabel: …; <name>`")
        names.append(match["name"])
    return tuple(names)


def _format(size: int) -> Format:
    return Format(
        name=f"gym{size}",
        title=f"FineGYM, the {size} elements of Gym{size}",
        expects=f"gym{size}_train_element_v1.1.txt and gym{size}_val_element.txt",
        files=_files_of(size),
        read=_reader_of(size),
    )


GYM99, GYM288 = _format(99), _format(288)
