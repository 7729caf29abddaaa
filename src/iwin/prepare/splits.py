"""The splits of a data set that a command is given: a list, table, index or folder each, or a folder of them all."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iwin.data.annotations import SPLIT_NAMES, Annotations, FrameFolder, FrameList, Sample
from iwin.data.layouts import is_table, read_annotation_file, read_annotation_folder
from iwin.data.shards import is_shards
from iwin.data.sources import is_url
from iwin.errors import DataError
from iwin.prepare.formats.writing import Entry, write_list, write_names

SPLITS = ("train", "val", "test")
"""Folders that hold the class folders of a split each."""

LIST_SUFFIXES = (".txt", ".csv")


@dataclass(frozen=True)
class Split:
    """A part of a data set.

    Attributes:
        name: such as "train"; of a list the file's name without its suffix, of a table or an index its folder's name.
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
        sources: list files (.txt, .csv), metadata tables, shards by their index or tar files; folders of class folders,
            of shards or with a metadata table; folders with such folders train/, val/ or test/ in them, whose classes
            are the training folder's; folders with the lists train.txt, val.txt or test.txt.
        root: what the paths in lists are relative to; None stands for each list's own folder.
        multi_label: whether the lines of lists can end in several labels.
        frame_folders: whether lists name folders of pictures, in lines of `path frames label`.

    Raises:
        DataError: if one cannot be read, or two of them have the same name.
    """
    splits: list[Split] = []
    for place in map(str, sources):
        if is_url(place):
            raise DataError(f"{place}: is an address; training and testing read it as it is, this works on local files")
        source = Path(place)
        is_list = source.suffix in LIST_SUFFIXES and (frame_folders or not is_table(place))
        if is_list and not source.is_dir():
            base = source.parent if root is None else Path(root)
            frames = FrameList() if frame_folders else None
            annotations = read_annotation_file(source, root=base, multi_label=multi_label, frames=frames)
            splits.append(Split(source.stem, annotations, base))
        elif root is not None:
            raise DataError(f"--root {root}: has no effect on {source}; it is for list files")
        elif frame_folders and not (source / "train.txt").is_file():
            raise DataError(f"--frame-folders: has no effect on {source}; it is for list files")
        elif (is_table(place) or is_shards(place)) and not source.is_dir():
            annotations = read_annotation_file(source, multi_label=multi_label)
            splits.append(Split(source.resolve().parent.name, annotations, source.parent))
        elif (source / "train.txt").is_file():
            lists = [path for name in SPLITS if (path := source / f"{name}.txt").is_file()]
            splits += read_splits(lists, multi_label=multi_label, frame_folders=frame_folders)
        else:
            splits += _read_folder(source, multi_label=multi_label)
    names = [split.name for split in splits]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two sources are called {name!r}; rename one, for results are told by these names")
    return splits


def _read_folder(folder: Path, *, multi_label: bool) -> list[Split]:
    inside = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    aliases = zip(SPLITS, SPLIT_NAMES, strict=True)
    found = {name: next(own for own in names if own in inside) for name, names in aliases if inside & set(names)}
    if not ("train" in inside or (found and inside == set(found.values()))):  # a class may be called "test"
        return [Split(folder.resolve().name, read_annotation_folder(folder, multi_label=multi_label), folder)]
    splits: list[Split] = []
    for name, own in found.items():
        classes = splits[0].annotations.classes if splits else None
        annotations = read_annotation_folder(folder / own, classes=classes, multi_label=multi_label)
        splits.append(Split(name, annotations, folder))
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
