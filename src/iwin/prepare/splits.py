"""The splits of a data set that a command is given: a list, table, index or folder each, or a folder of them all."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from iwin.data.annotations import (
    LIST_SUFFIXES,
    SPLIT_NAMES,
    TRIED,
    Annotations,
    FrameFolder,
    FrameList,
    Sample,
    ShardMember,
    composed,
)
from iwin.data.layouts import is_table, read_annotation_file, read_annotation_folder
from iwin.data.shards import is_shards
from iwin.data.sources import exists, is_url
from iwin.errors import DataError
from iwin.prepare.formats.library import frames_in
from iwin.prepare.formats.tables import has_columns
from iwin.prepare.formats.writing import Entry, write_list, write_names

SPLITS = ("train", "val", "test")
"""Folders that hold the class folders of a split each, and names of the lists in a folder of lists."""


@dataclass(frozen=True)
class Split:
    """A part of a data set.

    Attributes:
        name: such as "train"; of a list the file's name without its suffix, of a table or an index its folder's name.
        annotations: the labelled videos.
        root: the folder that the list's paths are relative to.
        frames: of a list of frame folders, how it is to be read.
        hollow: class folders without a video, where the folders are the classes; training refuses them.
    """

    name: str
    annotations: Annotations
    root: Path
    frames: FrameList | None = None
    hollow: tuple[str, ...] = ()

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
    frames: FrameList | None = None,
) -> list[Split]:
    """The splits that paths stand for, with all that is wrong with their labels: see `refuse_unfit`.

    Args:
        sources: list files (.txt, .csv), metadata tables, shards by their index or tar files; folders of class folders,
            of shards or with a metadata table; folders with such folders train/, val/ or test/ in them, whose classes
            are the training folder's; folders with the lists train.txt, val.txt and test.txt; without train.txt
            where `root` or `frames` says that lists are meant.
        root: what the paths in lists are relative to; None stands for each list's own folder.
        multi_label: whether the lines of lists can end in several labels.
        frames: where lists name folders of pictures, the form of their lines; how the pictures are named is found out
            from the folders.

    Raises:
        DataError: if one cannot be read, if none of the videos is there, or if two of them have the same name.
    """
    splits = list(_read(sources, root=root, multi_label=multi_label, frames=frames))
    _check_roots(splits)
    names = [split.name for split in splits]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two sources are called {name!r}; rename one, for results are told by these names")
    return splits


def _read(
    sources: Iterable[str | Path], *, root: str | Path | None, multi_label: bool, frames: FrameList | None
) -> Iterator[Split]:
    for place in map(str, sources):
        if is_url(place):
            raise DataError(f"{place}: is an address; training and testing read it as it is, this works on local files")
        source = Path(place)
        lists = [path for name in SPLITS if (path := source / f"{name}.txt").is_file()]
        is_list = source.suffix in LIST_SUFFIXES and (frames is not None or not is_table(place))
        if is_list and not source.is_dir():
            yield _read_list(source, root=root, multi_label=multi_label, frames=frames)
        elif lists and (lists[0].stem == "train" or root is not None or frames is not None):
            yield from _read(lists, root=root, multi_label=multi_label, frames=frames)
        elif root is not None:
            raise DataError(f"--root {root}: has no effect on {source}; it is for list files")
        elif frames is not None:
            raise DataError(f"--frame-folders: has no effect on {source}; it is for list files")
        elif (is_table(place) or is_shards(place)) and not source.is_dir():
            annotations = read_annotation_file(source, multi_label=multi_label, strict=False)
            yield Split(source.resolve().parent.name, annotations, source.parent)
        elif source.is_dir():
            yield from _read_folder(source, multi_label=multi_label)
        else:
            kind = "is no list, table or index of shards" if source.exists() else "there is no such folder or file"
            raise DataError(f"{source}: {kind}; name such a file, or a folder of class folders or of lists")


# ------------------------------------------------------------------------------------------ lists


def _read_list(source: Path, *, root: str | Path | None, multi_label: bool, frames: FrameList | None) -> Split:
    if source.is_file() and has_columns(source):
        raise DataError(
            f"{source}: is a table with a line of column names; `iwin data list {source}` makes lists of it"
        )
    base = source.parent if root is None else Path(root)
    annotations = read_annotation_file(source, root=base, multi_label=multi_label, frames=frames, strict=False)
    if frames is not None:
        frames = _look_at_frames(annotations.samples, frames)
        annotations = replace(annotations, samples=tuple(_renamed(annotations.samples, frames)))
    return Split(source.stem, annotations, base, frames)


def _look_at_frames(samples: Iterable[Sample], frames: FrameList) -> FrameList:
    """The form of a list with the names that the pictures have in most of its first folders."""
    found = (frames_in(path) for path in dict.fromkeys(sample.path for sample in samples))
    first = islice((one for one in found if one.count), TRIED)
    ways = Counter((one.template, one.first) for one in first).most_common(1)
    return frames._replace(template=ways[0][0][0], start=ways[0][0][1]) if ways else frames


def _renamed(samples: Iterable[Sample], frames: FrameList) -> Iterator[Sample]:
    before = FrameList()
    for sample in samples:
        stored = sample.stored
        if isinstance(stored, FrameFolder):
            stored = FrameFolder(stored.num_frames, stored.first - before.start + frames.start, frames.template)
        yield replace(sample, stored=stored)


def _check_roots(splits: Sequence[Split]) -> None:
    """Refuse lists of which nothing at all is there: then their paths are meant from another folder on."""
    samples = [sample for split in splits for sample in split.samples]
    if any(is_url(one.path) or isinstance(one.stored, ShardMember) or exists(one.path) for one in samples):
        return
    split, first = splits[0], samples[0]
    kind = "folders" if first.stored else "videos"
    raise DataError(
        f"{split.annotations.source}: none of its {len(split.samples)} {kind} is there, the first would be "
        f"{first.path}; {_other_reading(split, first)}"
    )


def _other_reading(split: Split, first: Sample) -> str:
    """What to do about a list of which nothing is there."""
    folder, _, number = first.path.rpartition(" ")
    if number.isdecimal() and Path(folder).is_dir():
        option = "--frame-folders" if split.frames is None else "--with-offset"
        return f"there is a folder {folder}, so the numbers behind it may be those of frames: add {option}"
    return f"name the folder that its paths are relative to with --root (it is {split.root} now)"


# ------------------------------------------------------------------------------------------ folders


def _read_folder(folder: Path, *, multi_label: bool) -> Iterator[Split]:
    inside = {path.name for path in folder.iterdir() if path.is_dir()}
    aliases = zip(SPLITS, SPLIT_NAMES, strict=True)
    found = {name: next(own for own in names if own in inside) for name, names in aliases if inside & set(names)}
    if not ("train" in inside or (found and inside == set(found.values()))):  # a class may be called "test"
        annotations = read_annotation_folder(folder, multi_label=multi_label, strict=False)
        yield Split(folder.resolve().name, annotations, folder, hollow=_hollow(folder, annotations))
        return
    classes = None
    for name, own in found.items():
        place = folder / own
        annotations = read_annotation_folder(place, classes=classes, multi_label=multi_label, strict=False)
        yield Split(name, annotations, folder, hollow=_hollow(place, annotations) if classes is None else ())
        classes = classes or annotations.classes


def _hollow(folder: Path, annotations: Annotations) -> tuple[str, ...]:
    there = {label for sample in annotations.samples for label in sample.labels}
    folders = {composed(path.name) for path in folder.iterdir() if path.is_dir()}
    names = enumerate(annotations.classes or ())
    return tuple(name for label, name in names if label not in there and composed(name) in folders)


# ------------------------------------------------------------------------------------------ use


def refuse_unfit(splits: Iterable[Split]) -> None:
    """Refuse what training cannot use, for steps that make lists and files of what they are given.

    Raises:
        DataError: naming the first video without a label or with one that no class has, or a class without a video.
    """
    for split in splits:
        classes = split.annotations.num_classes
        for sample in split.samples:
            if not sample.labels or max(sample.labels) >= classes:
                lack = f"has label {max(sample.labels)}, of {classes} classes" if sample.labels else "has no label"
                raise DataError(
                    f"{split.annotations.source}: {split.relative(sample.path)} {lack} (labels count from 0); "
                    "`iwin data check` names all such videos, and its --clean writes lists without them"
                )
        if split.hollow:
            folder = Path(split.annotations.source) / split.hollow[0]
            raise DataError(f"{folder}: the class folder holds no video; take it away or fill it")


def write_split(
    path: Path, samples: Iterable[Sample], *, classes: Sequence[str] | None, frames: FrameList | None = None
) -> None:
    """Write a list, and classes.txt beside it where there are class names; each atomically.

    Args:
        path: the list.
        samples: what it names, with paths as they shall stand in it.
        classes: class names by label.
        frames: of frame folders, the form of the lines; None leaves the first picture out.

    Raises:
        DataError: if a path has a line break.
        IwinError: if a file cannot be written.
    """
    write_list(path, [Entry(sample.path, sample.labels, _numbers(sample, frames)) for sample in samples])
    if classes:
        write_names(path.with_name("classes.txt"), classes)


def _numbers(sample: Sample, frames: FrameList | None) -> tuple[int, ...]:
    """What stands between the path and the labels of a line."""
    if not isinstance(sample.stored, FrameFolder):
        return ()
    if frames is None or not frames.with_offset:
        return (sample.stored.num_frames,)
    return sample.stored.first - frames.start, sample.stored.num_frames
