"""Something-Something V1 and V2, and Jester: numbered videos with label texts (Goyal et al., arXiv 1706.04261)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iwin.errors import DataError
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import Reading, Row
from iwin.prepare.formats.source import Source, head, json_of, lines_of, records_of, split_of

_ID_LABEL = re.compile(r"\d+;.*\S")
_ID = re.compile(r"\d+;?")
_VIDEOS = re.compile(r'^\s*\[\s*\{\s*("\w+"\s*:\s*("([^"\\]|\\.)*"|\d+)\s*,\s*)*"(template|placeholders)"')
_LABELS = re.compile(r'^\s*\{\s*"[^"]*[a-z][^"]*"\s*:\s*"?\d+"?\s*[,}]')


# ---------------------------------------------------------------------------------- Something-Something V2


def _v2_files(source: Source) -> list[Path]:
    is_video_list = {path: bool(_VIDEOS.match("\n".join(head(path))[:8192])) for path in source.named(r".*\.json")}
    if not any(is_video_list.values()):
        return []
    answers = [path for path in source.named(r".*answers\.csv") if _ID_LABEL.fullmatch((*head(path), "")[0])]
    hidden = [path for path in source.named(r".*test\.json") if not is_video_list[path]]
    return [path for path, is_list in is_video_list.items() if is_list] + (answers or hidden)


def _v2_read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:  # noqa: ARG001
    classes, of_label = _v2_classes(source)
    reading = Reading({}, classes)
    for path in files:
        split = split_of(path)
        if split is None:
            raise DataError(f"{path}: neither train, validation nor test is in its name, so its split is not known")
        if path.suffix.lower() == ".csv":
            videos = [
                {"id": video, "template": label} for video, _, label in (x.partition(";") for x in lines_of(path))
            ]
        else:
            videos = records_of(path, json_of(path), ["id"])
        for video in videos:
            reading.add(split, Row((f"{video['id']}.webm",), _v2_labels(path, video, of_label)))
    return reading


def _v2_labels(path: Path, video: dict[str, Any], of_label: dict[str, str]) -> tuple[str, ...]:
    template = str(video.get("template", ""))
    if not template:
        return ()
    if _template(template) not in of_label:
        raise DataError(f"{path}: the template {template!r} of video {video['id']} is none of the labels")
    return (of_label[_template(template)],)


def _v2_classes(source: Source) -> tuple[tuple[str, ...], dict[str, str]]:
    """The label texts in the order of their numbers, and from templates, brackets aside, to label texts."""
    files = [path for path in source.beside(r".*\.json") if _LABELS.match("\n".join(head(path))[:4096])]
    if len(files) != 1:
        raise DataError(
            f"{source.folder}: needs the file that numbers the labels (labels.json) beside the lists of videos, "
            f"and {len(files) or 'none'} is there"
        )
    numbers = {str(text): str(number) for text, number in json_of(files[0]).items()}
    classes = tuple(sorted(numbers, key=lambda text: (len(numbers[text]), numbers[text])))
    if [numbers[text] for text in classes] != [str(number) for number in range(len(classes))]:
        raise DataError(f"{files[0]}: the labels are not numbered from 0 to {len(classes) - 1}")
    return classes, {_template(text): text for text in classes}


def _template(text: str) -> str:
    return " ".join(text.replace("[", "").replace("]", "").casefold().split())


# --------------------------------------------------------------------------- Jester, Something-Something V1


def _v1_files(source: Source) -> list[Path]:
    tables = [path for path in source.named(r".*\.csv") if _ID_LABEL.fullmatch((*head(path), "")[0])]
    lists = [path for path in tables if split_of(path)]
    if not lists or any(_VIDEOS.match("\n".join(head(path))[:8192]) for path in source.beside(r".*\.json")):
        return []
    has_answers = any("answers" in path.name.lower() for path in lists)
    hidden = [path for path in source.named(r".*test\.csv") if all(_ID.fullmatch(line) for line in head(path)[:20])]
    return lists + ([] if has_answers else [path for path in hidden if path not in lists])


def _v1_read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:  # noqa: ARG001
    named = source.beside(r".*labels?\.csv")
    if len(named) > 1:
        raise DataError(f"{source.folder}: has several files of labels ({', '.join(path.name for path in named)})")
    reading = Reading({}, tuple(lines_of(named[0])) if named else None)
    for path in files:
        for line in lines_of(path):
            video, _, label = line.partition(";")
            label = label.strip()
            reading.add(split_of(path) or "train", Row((f"{video.strip()}.webm",), (label,) if label else ()))
    if not named:
        reading.notes.append("there is no file of labels beside the lists; the classes are in alphabetical order")
    return reading


SOMETHING_V2 = Format(
    name="something-v2",
    title="Something-Something V2 JSON",
    expects="train.json and validation.json with templates, and labels.json",
    files=_v2_files,
    read=_v2_read,
    aliases=("ssv2", "sthv2", "something-something-v2"),
)

ID_LABEL = Format(
    name="jester",
    title="lists of `id;label`, as of Jester and Something-Something V1",
    expects="*train.csv and *validation.csv with `id;label` lines, and *labels.csv",
    files=_v1_files,
    read=_v1_read,
    aliases=("something-v1", "ssv1", "sthv1", "something-something-v1"),
)
