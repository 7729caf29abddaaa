"""The splits of a data set that a command is given: lists, class folders, or a folder with train/ and val/ in it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iwin.data.annotations import Annotations, FrameFolder, FrameList, Sample, read_class_folders, read_list
from iwin.errors import DataError
from iwin.prepare.formats.writing import Entry, write_list, write_names

SPLITS = ("train", "val", "test")
"""Folders that hold the class folders of a split each."""

LIST_SUFFIXES = (".txt", ".csv")


@dataclass(frozen=True)
class Split:
    """A part of a data set.

    Attributes:
        name: such as "train"; of a list the file's name without its suffix.
        annotations: the labelled videos.
        root: the folder that the list's paths are relative to.
    """

    name: str
    annotations: Annotations
    root: Path

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The labelled videos."""
        return self.annotations.samples

    def relative(self, path: str) -> str:
        """A video's path as a list holds it: below `root`, with "/" between folders; others as they are."""
        try:
            return Path(path).relative_to(self.root).as_posix()
        except ValueError:
            return path


def read_splits(
    sources: Sequence[str | Path],
    *,
    root: str | Path | None = None,
    multi_label: bool = False,
    frame_folders: bool = False,
) -> list[Split]:
    """The splits that paths stand for.

    Args:
        sources: list files (.txt, .csv); folders of class folders; folders with train/, val/ or test/ of class folders
            in them, whose classes are the training folders'; folders with the lists train.txt, val.txt or test.txt.
        root: what the paths in lists are relative to; None stands for each list's own folder.
        multi_label: whether the lines of lists can end in several labels.
        frame_folders: whether lists name folders of pictures, in lines of `path frames label`.

    Raises:
        DataError: if one cannot be read, or two of them have the same name.
    """
    splits: list[Split] = []
    for source in map(Path, sources):
        if source.suffix in LIST_SUFFIXES and not source.is_dir():
            base = source.parent if root is None else Path(root)
            frames = FrameList() if frame_folders else None
            annotations = read_list(source, root=base, multi_label=multi_label, frames=frames)
            splits.append(Split(source.stem, annotations, base))
        elif root is not None:
            raise DataError(f"--root {root}: has no effect on the folder {source}; it is for list files")
        elif (source / "train.txt").is_file():
            lists = [path for name in SPLITS if (path := source / f"{name}.txt").is_file()]
            splits += read_splits(lists, multi_label=multi_label, frame_folders=frame_folders)
        else:
            splits += _read_folder(source)
    names = [split.name for split in splits]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two sources are called {name!r}; rename one, for results are told by these names")
    return splits


def _read_folder(folder: Path) -> list[Split]:
    inside = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    names = [name for name in SPLITS if name in inside]
    if not ("train" in names or (names and inside == set(names))):  # a class may be called "test"
        return [Split(folder.resolve().name, read_class_folders(folder), folder)]
    splits: list[Split] = []
    for name in names:
        classes = splits[0].annotations.classes if splits else None
        splits.append(Split(name, read_class_folders(folder / name, classes=classes), folder))
    return splits


def write_split(path: Path, samples: Iterable[Sample], *, classes: Sequence[str] | None) -> None:
    """Write a list, and classes.txt beside it where there are class names; each atomically.

    Args:
        path: the list.
        samples: what it names, with paths as they shall stand in it.
        classes: class names by label.

    Raises:
        DataError: if a path has a line break.
        IwinError: if a file cannot be written.
    """
    write_list(path, [Entry(sample.path, sample.labels, _frames(sample)) for sample in samples])
    if classes:
        write_names(path.with_name("classes.txt"), classes)


def _frames(sample: Sample) -> tuple[int, ...]:
    return (sample.stored.num_frames,) if isinstance(sample.stored, FrameFolder) else ()
