"""`iwin tool build_file_list`: train and val lists from class folders or from one list, by upstream's arguments.

`iwin data list` does the same for every data set; this tool lists what is named without looking for it on disk.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import idle_options, output_folder
from iwin.errors import DataError

if TYPE_CHECKING:
    from iwin.prepare.formats import Reading
    from iwin.prepare.formats.writing import Entry

SUBSETS = ("train", "val", "test")
IDLE = dict.fromkeys(("rgb_prefix", "flow_x_prefix", "flow_y_prefix", "num_split"), "frames are found by their numbers")


def add_parser(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the tool."""
    parser = tools.add_parser(
        "build_file_list",
        help="train and val lists of videos",
        description="Write train.txt and val.txt of `path label` lines, and classes.txt. Upstream's arguments, DATASET "
        "SRC_FOLDER, are taken too; the lists then go to <out-root-path>/DATASET.",
    )
    parser.add_argument(
        "source", metavar="SRC_FOLDER", help="class folders, train/ and val/ with class folders, or a list to divide"
    )
    parser.add_argument("out", metavar="OUT", nargs="?", help="folder for the lists (default: the source's)")
    parser.add_argument("--val-share", type=float, default=0.2, metavar="P", help="of every class (default 0.2)")
    parser.add_argument("--subset", choices=SUBSETS, help="all videos belong to this list; nothing is divided")
    parser.add_argument("--seed", type=int, default=0, help="seed of the division and of --shuffle (default 0)")
    parser.add_argument("--shuffle", action="store_true", help="lines in random order instead of the source's")
    old = parser.add_argument_group("accepted for upstream's commands")
    old.add_argument("--out-root-path", default="data", metavar="DIR", help="with DATASET SRC_FOLDER (default data)")
    old.add_argument("--level", type=int, choices=[1, 2], default=2, help="2: videos stand in class folders")
    old.add_argument("--format", choices=["videos", "rawframes"], default="videos", help="videos, or folders of frames")
    old.add_argument("--output-format", choices=["txt", "json"], default="txt", help="txt only")
    for name in IDLE:
        old.add_argument(f"--{name.replace('_', '-')}", help="no effect")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the lists."""
    from iwin.prepare.formats.rows import UNDIVIDED, numbered
    from iwin.prepare.formats.writing import check_listable, divide, write_list, write_names

    if args.output_format == "json":
        raise DataError("JSON lists are not made; leave --output-format json out")
    if args.level == 1:
        raise DataError("--level 1: videos outside class folders have no labels; give a list of them as SRC_FOLDER")
    if not 0 <= args.val_share < 1:
        raise DataError(f"--val-share {args.val_share}: is a share of the videos from 0 to below 1")
    for note in idle_options(args, IDLE):
        print(f"note: {note}", file=sys.stderr)
    source, out, name = places(args)
    output_folder(str(out))
    frames = args.format == "rawframes"
    try:
        reading = numbered(read_source(source, frames=frames))
    except DataError as error:
        if source == Path(args.source):
            raise
        raise DataError(
            f"{args.source}: there is no such folder or list; taken as the name of a data set, {error}"
        ) from None
    lists = entries_of(reading, source, frames=frames)
    check_listable((entry.path for entries in lists.values() for entry in entries), reading.classes)
    if args.subset:
        lists = {args.subset: [entry for entries in lists.values() for entry in entries]}
    elif list(lists) == [UNDIVIDED]:
        lists = divide(lists[UNDIVIDED], val_share=args.val_share, seed=args.seed, names=reading.classes)
    paths = {subset: out / name.format(subset) for subset in lists}
    if source.resolve() in (path.resolve() for path in paths.values()):
        raise DataError(f"{source} would be overwritten by a part of itself; name another folder for the lists")
    for subset, path in paths.items():
        write_list(path, lists[subset], seed=args.seed if args.shuffle else None)
        classes = {label for entry in lists[subset] for label in entry.labels}
        print(f"wrote {path}: {len(lists[subset])} videos of {len(classes)} classes")
    if reading.classes:
        write_names(out / "classes.txt", reading.classes)
    if source.is_dir() and out.samefile(source) and {"train", "val"} <= paths.keys() and not frames:
        print(f"to train on them: iwin train CONFIG --data {out}")
    elif source.is_dir():
        print(f"their paths are relative to {source}: data.<split>.data_prefix={source} data.<split>.ann_file=<list>")
    return 0


def places(args: argparse.Namespace) -> tuple[Path, Path, str]:
    """The source, the folder for the lists, and what they are called there."""
    first, second = Path(args.source), Path(args.out) if args.out else None
    if second is not None and second.exists() and not first.exists():  # upstream's DATASET SRC_FOLDER
        return second, Path(args.out_root_path) / args.source, f"{args.source}_{{}}_list_{args.format}.txt"
    return first, second or (first if first.is_dir() else first.parent), "{}.txt"


def read_source(source: Path, *, frames: bool) -> "Reading":
    """The videos of each subset.

    Raises:
        DataError: if there is nothing to list.
    """
    from iwin.prepare.formats import Reading
    from iwin.prepare.formats.folders import read_folder_rows
    from iwin.prepare.formats.lists import classes_beside, read_list_rows
    from iwin.prepare.formats.rows import UNDIVIDED

    if source.is_dir():
        return read_folder_rows(source, frames=frames)
    if not source.is_file():
        raise DataError(f"{source}: there is no such folder or list")
    if frames:
        raise DataError(f"--format rawframes: needs class folders of frame folders, and {source} is a list")
    rows = read_list_rows(source)
    labels = {label for row in rows for label in row.labels}
    if 0 not in labels and all(isinstance(label, int) for label in labels):
        print("note: no video has label 0, and labels count from 0: the first class has no videos", file=sys.stderr)
    return Reading({UNDIVIDED: rows}, classes_beside(source))


def entries_of(reading: "Reading", source: Path, *, frames: bool) -> "dict[str, list[Entry]]":
    """The lines of each list, for videos as they are named, for frame folders with their number of frames."""
    from iwin.prepare.formats.library import Library
    from iwin.prepare.formats.writing import Entry

    lists = {
        subset: [Entry(row.names[0], tuple(int(label) for label in row.labels)) for row in rows]
        for subset, rows in reading.splits.items()
    }
    if not frames:
        return lists
    library = Library(source)
    return {
        subset: [replace(entry, frames=(library.frames_of(entry.path).count,)) for entry in entries]
        for subset, entries in lists.items()
    }
