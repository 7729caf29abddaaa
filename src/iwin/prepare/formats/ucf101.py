"""UCF101: classInd.txt, trainlist0N.txt and testlist0N.txt (Soomro et al., arXiv 1212.0402)."""

import re
from collections.abc import Sequence
from pathlib import Path

from iwin.errors import DataError
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import Reading, Row, squashed
from iwin.prepare.formats.source import Source, head, lines_of, split_of

_LIST = r"(train|test)list0?[1-9]\.txt"


_LINE = re.compile(r"(.*[\\/])?v_\w+_g\d+_c\d+\.avi(\s+\d+)?")
"""A line of its lists: they are known without classInd.txt, too, lest they pass for lists that count from 0."""


def _files(source: Source) -> list[Path]:
    found = source.named(_LIST)
    if source.beside(r"classind\.txt"):
        return found
    return [path for path in found if _LINE.fullmatch((*head(path), "")[0])]


def _read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:
    chosen = [path for path in files if re.search(rf"0?{choice.fold}\.txt$", path.name)] if len(files) > 1 else files
    if not chosen:
        raise DataError(f"{source.folder}: has no trainlist0{choice.fold}.txt; UCF101 has the divisions 1, 2 and 3")
    index = source.beside(r"classind\.txt")
    if not index:
        raise DataError(
            f"{chosen[0]}: needs classInd.txt beside it, which numbers the classes and comes with these lists"
        )
    classes = _classes(index[0])
    reading = Reading({}, classes, ignore_case=True)
    known = {squashed(name): name for name in classes}
    for path in chosen:
        # The published test list is what is evaluated after each epoch; there is no other.
        split = "train" if split_of(path) == "train" else "val"
        for number, line in enumerate(lines_of(path), 1):
            name, _, label = line.partition(" ")
            name = name.replace("\\", "/")
            folder = name.rpartition("/")[0]
            if squashed(folder) not in known:
                raise DataError(f"{path}:{number}: {folder!r} is none of the {len(classes)} classes of {index[0].name}")
            label_name = known[squashed(folder)]
            if label.strip() and label.strip() != str(classes.index(label_name) + 1):
                raise DataError(f"{path}:{number}: {index[0].name} numbers {folder} otherwise than this line")
            reading.add(split, Row((name, name.rpartition("/")[2]), (label_name,)))
    reading.notes.append(f"division {choice.fold if len(files) > 1 else chosen[0].stem[-1]}; val is its test list")
    return reading


def _classes(path: Path) -> tuple[str, ...]:
    pairs = [line.split(maxsplit=1) for line in lines_of(path)]
    if not pairs or not all(len(pair) == 2 and pair[0] == str(number) for number, pair in enumerate(pairs, 1)):
        raise DataError(f"{path}: expected lines such as `1 ApplyEyeMakeup`, numbered from 1")
    return tuple(name for _, name in pairs)


FORMAT = Format(
    name="ucf101",
    title="UCF101 lists",
    expects="classInd.txt with trainlist0N.txt and testlist0N.txt",
    files=_files,
    read=_read,
)
