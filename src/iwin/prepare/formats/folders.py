"""Class folders: <class>/<video>, or train/<class>/<video> and val/<class>/<video>."""

import os
from collections.abc import Sequence
from pathlib import Path

from iwin.data.annotations import VIDEO_SUFFIXES, is_video, read_class_folders
from iwin.errors import DataError
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.library import IMAGE_SUFFIXES, Library, class_of
from iwin.prepare.formats.rows import UNDIVIDED, Reading, Row
from iwin.prepare.formats.source import Source, split_named

SPLITS = ("train", "val", "test")


def _files(source: Source) -> list[Path]:
    """The folder itself, if videos or frame folders lie in class folders right below it or its splits."""
    root = source.folder
    if not source.paths[0].is_dir():
        return []
    return [root] if all(_has_classes(root / split) for split in splits_in(root)) else []


def nested_files(source: Source) -> list[Path]:
    """The folder itself, if there are folders in it or its splits that hold videos at any depth.

    Folders of other things look the same, so this is asked where there is nothing else to read.
    """
    root = source.folder
    if not source.paths[0].is_dir():
        return []
    return [root] if all(_has_nested(root / split) for split in splits_in(root)) else []


def splits_in(root: Path) -> list[str]:
    """The split folders of a folder: train and others beside it, or `UNDIVIDED` for the folder itself."""
    found = [name for name in SPLITS if (root / name).is_dir()]
    return found if "train" in found else [UNDIVIDED]


def hold_no_classes(root: Path) -> bool:
    """Whether what may be class folders is rather one folder of videos, or one for each split."""
    folders = _folders(root)
    return splits_in(root) == [UNDIVIDED] and (len(folders) == 1 or all(split_named(path.name) for path in folders))


def _folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _has_classes(folder: Path) -> bool:
    classes = _folders(folder)
    return any(_holds(path, VIDEO_SUFFIXES) for path in classes) or any(
        _holds(clip, IMAGE_SUFFIXES) for path in classes[:1] for clip in path.iterdir() if clip.is_dir()
    )


def _has_nested(folder: Path) -> bool:
    classes = _folders(folder)
    if len(classes) < 2 or all(split_named(path.name) for path in classes):
        return False
    return any(is_video(name) for path in classes for _, _, names in os.walk(path) for name in names)


def _holds(folder: Path, suffixes: frozenset[str]) -> bool:
    with os.scandir(folder) as entries:
        return any(Path(entry.name).suffix.lower() in suffixes for entry in entries)


def _read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:  # noqa: ARG001
    return read_folder_rows(files[0])


def read_folder_rows(root: Path, *, frames: bool | None = None) -> Reading:
    """The videos in class folders, by split.

    Args:
        root: the folder.
        frames: whether clips are folders of frames; None finds out.

    Raises:
        DataError: if there are no class folders, or one of training is empty.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder")
    reading = Reading({})
    known: tuple[str, ...] | None = None
    for split in splits_in(root):
        folder = root / split
        prefix = f"{split}/" if split else ""
        library = None if frames is False else Library(folder)
        if library and (frames or not library.num_videos):
            pairs = [(path, class_of(path)) for path in sorted(library.frames) if "/" in path]
            if not pairs:
                raise DataError(f"{folder}: holds no video and no frame folder in class folders (<class>/<video>)")
        else:
            found = read_class_folders(folder, classes=known)
            known = known or found.classes
            paths = [Path(sample.path).relative_to(folder).as_posix() for sample in found.samples]
            pairs = [(path, class_of(path)) for path in paths]
        for path, name in pairs:
            reading.add(split, Row((prefix + path,), (name,)))
    reading.classes = known
    return reading


FORMAT = Format(
    name="folders",
    title="class folders",
    expects="<class>/<video>, or train/<class>/<video> and val/<class>/<video>",
    files=_files,
    read=_read,
    aliases=("class-folders",),
    is_general=True,
)
