"""The labelled videos of a place, in whichever of the layouts they lie there.

Videos are labelled by the lines of a list, the rows of a metadata table, the index of shards or the folders that they
lie in. Each layout has a reader of its own; here is which of them a path is for.
"""

from collections.abc import Sequence
from pathlib import Path

from iwin.data.annotations import Annotations, FrameList, read_class_folders, read_list
from iwin.data.shards import is_shards, read_shards
from iwin.data.sources import path_in
from iwin.data.video_folder import METADATA, Table, find_table, read_video_folder
from iwin.errors import DataError


def read_annotation_file(
    path: str | Path,
    *,
    root: str | Path = "",
    frames: FrameList | None = None,
    classes: Sequence[str] | None = None,
    multi_label: bool = False,
    strict: bool = True,
) -> Annotations:
    """Read a list, a metadata table (metadata.csv, metadata.jsonl), or shards by their index or their tar files.

    Args:
        path: the file, an address, or several tar files as in shard-{000..127}.tar.
        root: what the paths in a list are relative to; tables and indices hold paths relative to themselves.
        frames: for lists of frame folders.
        classes: class names by label when they are known already, for labels that are names.
        multi_label: whether a video can have several labels.
        strict: whether what training cannot use is refused: videos without a label, labels without a class, a list
            whose first videos do not exist. Otherwise all videos are given, labels that no class has included.

    Raises:
        DataError: if it cannot be read.
    """
    place = str(path)
    try:
        if frames is None and is_table(place):
            return read_video_folder(Table(place), classes=classes, multi_label=multi_label, strict=strict)
        if frames is None and is_shards(place):
            shards = read_shards(place, classes=classes, multi_label=multi_label, strict=strict)
            if shards is not None:
                return shards
    except FileNotFoundError:
        raise DataError(f"{place}: there is no such file; check the path") from None
    return read_list(path, root=root, multi_label=multi_label, frames=frames, strict=strict)


def read_annotation_folder(
    folder: str | Path, *, classes: Sequence[str] | None = None, multi_label: bool = False, strict: bool = True
) -> Annotations:
    """Read a folder of shards, one with a metadata table in it or above it, or one of class folders.

    Args:
        folder: the folder, or an address.
        classes: class names by label when they are known already (a validation split takes the training split's).
        multi_label: whether a video can have several labels; class folders give it one.
        strict: whether what training cannot use is refused: videos without a label, classes that are not known or
            have no video.

    Raises:
        DataError: if it cannot be read.
    """
    shards = read_shards(folder, classes=classes, multi_label=multi_label, strict=strict)
    if shards is not None:
        return shards
    table = find_table(folder)
    if table is not None:
        return read_video_folder(table, classes=classes, multi_label=multi_label, strict=strict)
    return read_class_folders(folder, classes=classes, strict=strict)


def is_table(path: str) -> bool:
    """Whether a path is that of a metadata table."""
    return path_in(path).name in METADATA
