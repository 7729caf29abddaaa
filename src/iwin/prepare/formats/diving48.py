"""Diving48: JSON lists of clips and a vocabulary (Li et al., ECCV 2018; version 2 of the annotations)."""

import re
from collections.abc import Sequence
from pathlib import Path

from iwin.errors import DataError
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import Reading, Row
from iwin.prepare.formats.source import Source, head, json_of, records_of, split_of

_CLIPS = re.compile(r'^\s*\[\s*\{[^}]*"vid_name"')


def _files(source: Source) -> list[Path]:
    return [path for path in source.named(r".*\.json") if _CLIPS.match("\n".join(head(path))[:4096])]


def _read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:  # noqa: ARG001
    versions = {match[0].lower() for path in files if (match := re.search(r"_v\d", path.name, re.IGNORECASE))}
    if len(versions) > 1 or (versions and any(not re.search(r"_v\d", path.name, re.IGNORECASE) for path in files)):
        raise DataError(f"{source.folder}: holds several versions of the annotations; name the files of one of them")
    vocabulary = source.beside(r".*vocab\.json")
    classes = tuple(" ".join(map(str, words)) for words in json_of(vocabulary[0])) if vocabulary else None
    reading = Reading({}, classes)
    for path in files:
        # The published test part is what is evaluated after each epoch; there is no other.
        split = "train" if split_of(path) == "train" else "val"
        for clip in records_of(path, json_of(path), ["vid_name", "label"]):
            if not str(clip["label"]).isdecimal():
                raise DataError(f"{path}: {clip['vid_name']} has the label {clip['label']!r}, which is no number")
            reading.add(split, Row((f"{clip['vid_name']}.mp4",), (int(clip["label"]),)))
    reading.notes.append("val is the published test part")
    return reading


FORMAT = Format(
    name="diving48",
    title="Diving48 JSON",
    expects="Diving48_V2_train.json and Diving48_V2_test.json, and Diving48_vocab.json",
    files=_files,
    read=_read,
)
