"""`iwin tool build_file_list`: train and val lists from class folders or from one list."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iwin.cli.common import idle_options
from iwin.errors import DataError

SUBSETS = ("train", "val", "test")
IDLE = dict.fromkeys(("rgb_prefix", "flow_x_prefix", "flow_y_prefix", "num_split"), "videos have no frame folders")


@dataclass(frozen=True)
class Entry:
    """A video as a list names it.

    Attributes:
        path: the file, relative to the source.
        label: its class, by name or by number.
    """

    path: str
    label: str | int


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
    old.add_argument("--format", choices=["videos", "rawframes"], default="videos", help="videos only")
    old.add_argument("--output-format", choices=["txt", "json"], default="txt", help="txt only")
    for name in IDLE:
        old.add_argument(f"--{name.replace('_', '-')}", help="no effect")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the lists."""
    if args.format == "rawframes" or args.output_format == "json":
        raise DataError("lists of frame folders and JSON lists are not made yet; use --format videos, without json")
    if args.level == 1:
        raise DataError("--level 1: videos outside class folders have no labels; give a list of them as SRC_FOLDER")
    if not 0 <= args.val_share < 1:
        raise DataError(f"--val-share {args.val_share}: is a share of the videos from 0 to below 1")
    for note in idle_options(args, IDLE):
        print(f"note: {note}", file=sys.stderr)
    source, out, name = places(args)
    lists, classes = read_source(source)
    if args.subset:
        lists = {args.subset: [entry for entries in lists.values() for entry in entries]}
    elif list(lists) == [""]:
        lists = divide(lists[""], val_share=args.val_share, seed=args.seed)
    paths = {subset: out / name.format(subset) for subset in lists}
    if source.resolve() in (path.resolve() for path in paths.values()):
        raise DataError(f"{source} would be overwritten by a part of itself; name another folder for the lists")
    for subset, path in paths.items():
        write_list(path, lists[subset], classes, seed=args.seed if args.shuffle else None)
    if classes:
        write(out / "classes.txt", "".join(f"{name}\n" for name in classes))
    if source.is_dir() and out.samefile(source) and {"train", "val"} <= paths.keys():
        print(f"to train on them: iwin train CONFIG --data {out}")
    elif source.is_dir():
        print(f"their paths are relative to {source}: data.<split>.data_prefix={source} data.<split>.ann_file=<list>")
    return 0


def places(args: argparse.Namespace) -> tuple[Path, Path, str]:
    """The source, the folder for the lists, and what they are called there."""
    first, second = Path(args.source), Path(args.out) if args.out else None
    if second is not None and second.exists() and not first.exists():  # upstream's DATASET SRC_FOLDER
        return second, Path(args.out_root_path) / args.source, f"{args.source}_{{}}_list_videos.txt"
    return first, second or (first if first.is_dir() else first.parent), "{}.txt"


# ---------------------------------------------------------------------------------------------- reading


def read_source(source: Path) -> tuple[dict[str, list[Entry]], list[str] | None]:
    """The videos of each subset ("" where the source has none), and the class names where it has some.

    Raises:
        DataError: if there is nothing to list.
    """
    if source.is_file():
        return {"": read_entries(source)}, read_classes(source)
    if not source.is_dir():
        raise DataError(f"{source}: there is no such folder or list")
    subsets = [name for name in SUBSETS if (source / name).is_dir()]
    if "train" not in subsets:
        subsets = [""]
    lists = {subset: read_folder(source, subset) for subset in subsets}
    return lists, sorted({str(entry.label) for entries in lists.values() for entry in entries})


def read_folder(root: Path, subset: str) -> list[Entry]:
    """The videos in the class folders of a folder."""
    from iwin.data.annotations import read_class_folders

    found = read_class_folders(root / subset)
    assert found.classes is not None
    classes = found.classes
    return [Entry(Path(sample.path).relative_to(root).as_posix(), classes[sample.label]) for sample in found.samples]


def read_entries(path: Path) -> list[Entry]:
    """The videos of a list: a path and a label a line, between them a comma or white space."""
    from iwin.data.annotations import LIST_LINE

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list cannot be read ({error})") from None
    entries = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        match = LIST_LINE.fullmatch(line)
        parts = (match["path"], match["label"]) if match else line.rsplit("," if "," in line else None, 1)
        if len(parts) != 2 or not parts[0].strip():
            raise DataError(f"{path}:{number}: expected a path and a label, found {line!r}")
        entries.append(Entry(parts[0].strip(), parts[1].strip()))
    if not entries:
        raise DataError(f"{path}: the list names no video")
    if all(str(entry.label).isdecimal() for entry in entries):
        return [Entry(entry.path, int(entry.label)) for entry in entries]
    return entries


def read_classes(path: Path) -> list[str] | None:
    """The class names of a list: those beside it, or its labels where they are names."""
    beside = path.with_name("classes.txt")
    if beside.is_file():
        return beside.read_text(encoding="utf-8").splitlines()
    labels = {entry.label for entry in read_entries(path)}
    if any(isinstance(label, str) for label in labels):
        return sorted(map(str, labels))
    if 0 not in labels:
        print("note: no video has label 0, and labels count from 0: the first class has no videos", file=sys.stderr)
    return None


# ---------------------------------------------------------------------------------------------- writing


def divide(entries: Sequence[Entry], *, val_share: float, seed: int) -> dict[str, list[Entry]]:
    """Videos for training and for validation: of each class at random, and of a class with one video, for training."""
    import numpy as np

    by_label: dict[str | int, list[Entry]] = {}
    for entry in entries:
        by_label.setdefault(entry.label, []).append(entry)
    val = set()
    for label, videos in sorted(by_label.items(), key=lambda item: str(item[0])):
        count = 0 if val_share == 0 or len(videos) == 1 else max(1, round(val_share * len(videos)))
        rng = np.random.default_rng([seed, *str(label).encode()])
        val |= {videos[index] for index in rng.permutation(len(videos))[: min(count, len(videos) - 1)]}
    divided = {"train": [entry for entry in entries if entry not in val]}
    return divided | {"val": [entry for entry in entries if entry in val]} if val else divided


def write_list(path: Path, entries: Sequence[Entry], classes: Sequence[str] | None, *, seed: int | None) -> None:
    """Write `path label` lines, in random order where there is a seed."""
    import numpy as np

    numbers: Mapping[str | int, int] = {name: number for number, name in enumerate(classes or ())}
    lines = [f"{listed(entry.path)} {numbers.get(entry.label, entry.label)}" for entry in entries]
    if seed is not None:
        lines = [lines[index] for index in np.random.default_rng(seed).permutation(len(lines))]
    write(path, "".join(f"{line}\n" for line in lines))
    print(f"wrote {path}: {len(entries)} videos of {len({entry.label for entry in entries})} classes")


def listed(path: str) -> str:
    """A path as a list can hold it: a line that begins with # would be a comment."""
    if "\n" in path:
        raise DataError(f"{path!r}: a list cannot hold a path with a line break; rename the file")
    return f"./{path}" if path.startswith("#") else path


def write(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    from iwin.files import write_atomically

    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
