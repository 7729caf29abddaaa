"""Where samples come from: list files and class folders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iwin.errors import DataError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"}
    | {".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}
)
"""Files in class folders that count as videos."""

LIST_LINE = re.compile(r"(?P<path>.+?)(\s*,\s*|\s+)(?P<label>\d+)")
"""A line of a list file: the path may hold spaces and commas."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A labelled video.

    Attributes:
        path: where it is.
        labels: its classes, counted from 0; one, except in lists of several labels a video.
    """

    path: str
    labels: tuple[int, ...]

    @property
    def label(self) -> int:
        """Its first class."""
        return self.labels[0]


@dataclass(frozen=True)
class Annotations:
    """The samples of one split.

    Attributes:
        samples: the labelled videos, in the order of their source.
        classes: class names by label, or None where the source has none.
        source: the list or folder they come from, for messages.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...] | None
    source: Path

    @property
    def num_classes(self) -> int:
        """Number of classes: of the names, or else the largest label plus one."""
        return len(self.classes) if self.classes else 1 + max(max(sample.labels) for sample in self.samples)

    def check_labels(self, num_classes: int) -> None:
        """Refuse labels that a model of `num_classes` classes does not have.

        Raises:
            DataError: naming the first such video.
        """
        for sample in self.samples:
            if max(sample.labels) >= num_classes:
                raise DataError(
                    f"{self.source}: {Path(sample.path).name} has label {max(sample.labels)}, but the model has "
                    f"{num_classes} classes (labels count from 0); set model.cls_head.num_classes to the number of "
                    "classes"
                )


def read_list(path: str | Path, *, root: str | Path = "") -> Annotations:
    """Read a list file: a `path label` line for each video, separated by white space or a comma.

    Paths may hold spaces and are taken relative to `root`. Blank lines and lines starting with # are passed over. A
    `classes.txt` beside the list, a name a line, gives the class names.

    Raises:
        DataError: if the list cannot be read, a line is not of that form, or none of the first files exist.
    """
    path, root = Path(path), Path(root)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: the annotation list cannot be read ({error.strerror}); set ann_file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not a text file in UTF-8; an annotation list holds `path label` lines") from None
    samples = [
        _parse_line(line, root, where=f"{path}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    ]
    if not samples:
        raise DataError(f"{path}: the annotation list names no video; it needs a `path label` line for each")
    _check_root(samples, path, root)
    annotations = Annotations(tuple(samples), _read_class_names(path.with_name("classes.txt")), path)
    if annotations.classes:
        highest = max(max(sample.labels) for sample in samples)
        if highest >= len(annotations.classes):
            raise DataError(
                f"{path.with_name('classes.txt')}: names {len(annotations.classes)} classes, but {path} has label "
                f"{highest} (labels count from 0); complete it or take it away"
            )
    return annotations


def _parse_line(line: str, root: Path, *, where: str) -> Sample:
    match = LIST_LINE.fullmatch(line.strip())
    if match is None:
        raise DataError(f"{where}: expected `path label` with a whole number as label, found {line.strip()!r}")
    return Sample(str(root / match["path"]), (int(match["label"]),))


def _check_root(samples: Sequence[Sample], source: Path, root: Path, tried: int = 20) -> None:
    first = samples[:tried]
    if not any(Path(sample.path).exists() for sample in first):
        raise DataError(
            f"{source}: none of its first {len(first)} videos exists, the first would be {first[0].path}; "
            f"its paths are taken relative to data_prefix, which is {str(root)!r}"
        )


def _read_class_names(path: Path) -> tuple[str, ...] | None:
    try:
        return tuple(path.read_text(encoding="utf-8").rstrip().splitlines()) if path.is_file() else None
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path}: cannot be read as class names, a name a line in UTF-8") from None


def read_class_folders(root: str | Path, *, classes: Sequence[str] | None = None) -> Annotations:
    """Read a folder of class folders: root/<class>/…/<video>; labels follow the sorted class names.

    Args:
        root: the folder.
        classes: class names by label when they are known already (a validation split takes the training split's);
            None takes the names of the folders.

    Raises:
        DataError: if there is no such folder or no video in it, or a folder is none of the known classes.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; data_prefix must hold one folder of videos for each class")
    found = sorted(folder.name for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    names = tuple(found if classes is None else classes)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise DataError(f"{root}: the class folder {unknown[0]!r} is not among the {len(names)} classes of the model")
    labels = {name: label for label, name in enumerate(names)}
    videos = {name: _videos(root / name) for name in found}
    empty = [name for name, paths in videos.items() if not paths]
    if classes is None and empty and len(empty) < len(found):
        raise DataError(f"{root / empty[0]}: the class folder holds no video; take it away or fill it")
    samples = [Sample(str(path), (labels[name],)) for name, paths in videos.items() for path in paths]
    if not samples:
        raise DataError(f"{root}: holds no video in class folders (root/<class>/<video>)")
    return Annotations(tuple(samples), names, root)


def _videos(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
