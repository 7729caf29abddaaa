"""`iwin data list`: list files and classes.txt from the annotations of a data set."""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import output_file, output_folder
from iwin.errors import DataError

if TYPE_CHECKING:
    from iwin.prepare.formats import Choice, Format, Reading
    from iwin.prepare.formats.library import Library
    from iwin.prepare.formats.writing import Entry, Split

SPLITS = ("train", "val", "test")
FOLDS = ("1", "2", "3")

_SHOWN = 3
"""How many missing videos are named."""


def add_parser(steps: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the step."""
    parser = steps.add_parser(
        "list",
        help="list files from annotations",
        description="Read the annotations of a data set, find its videos on disk, and write <split>.txt lists of "
        "`path label` lines (`folder frames label` for frame folders) and classes.txt.",
    )
    parser.add_argument("source", metavar="SOURCE", nargs="+", help="folder of annotations, or the annotation files")
    parser.add_argument("--format", metavar="NAME", help="of the annotations (default: recognised), such as ucf101")
    parser.add_argument("--videos", metavar="DIR", help="folder of the videos or frame folders (default: the source's)")
    parser.add_argument("--out", metavar="DIR", help="folder for the lists (default: the videos')")
    parser.add_argument(
        "--split",
        nargs="+",
        choices=[*SPLITS, *FOLDS],
        default=[],
        help="lists to write (default all); a number chooses the division of UCF101 and HMDB51 (default 1)",
    )
    parser.add_argument(
        "--classes", metavar="FILE", help="class names in the order of their numbers, a name a line; or kinetics400"
    )
    parser.add_argument("--tags", nargs="+", default=["action"], metavar="CATEGORY", help="of HVU, or all")
    parser.add_argument("--segments", action="store_true", help="of ActivityNet: annotated parts of frame folders")
    parser.add_argument("--frames", action="store_true", help="list frame folders even where there are videos")
    parser.add_argument("--path-column", metavar="NAME", help="the column of a table that names the videos")
    parser.add_argument("--label-column", metavar="NAME", help="the column of a table that holds the labels")
    parser.add_argument(
        "--val-share",
        type=float,
        default=0.2,
        metavar="P",
        help="of each class, where nothing is divided (default 0.2)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of that division (default 0)")
    parser.add_argument("--keep-missing", action="store_true", help="list videos that are not on disk, too")
    parser.add_argument("--missing", metavar="FILE", help="write the names of videos that are not on disk, one a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the lists."""
    from iwin.prepare.formats import read_annotations
    from iwin.prepare.formats.library import Library
    from iwin.prepare.formats.rows import numbered
    from iwin.prepare.formats.writing import check_listable, divided, write_list, write_names

    if not 0 <= args.val_share < 1:
        raise DataError(f"--val-share {args.val_share}: is a share of the videos from 0 to below 1")
    paths = [Path(name) for name in args.source]
    videos = Path(args.videos or (paths[0] if paths[0].is_dir() else paths[0].parent))
    if not videos.is_dir():
        raise DataError(f"--videos {videos}: there is no such folder")
    out = output_folder(args.out or str(videos))
    missing = output_file(args.missing, []) if args.missing else None
    found, reading = read_annotations(paths, name=args.format, choice=choice_of(args))
    reading = wanted(numbered(reading, classes=class_names(args.classes)), args.split)
    reading.splits = {name: reading.splits[name] for name in sorted(reading.splits, key=("", *SPLITS).index)}
    library = Library(videos)
    splits = on_disk(found, reading, library, args)
    check_listable((entry.path for split in splits.values() for entry in split.entries), reading.classes)
    lists = divided(splits, val_share=args.val_share, seed=args.seed, names=reading.classes)
    lists = {name: entries for name, entries in lists.items() if entries}
    report(found, reading, splits, args)
    if missing is not None:
        write_names(missing, [name for split in splits.values() for name in split.missing])
    if not lists:
        raise DataError(nothing_found(splits, videos))
    clashes = [out / f"{name}.txt" for name in lists if (out / f"{name}.txt").resolve() in map(Path.resolve, paths)]
    if clashes:
        raise DataError(f"{clashes[0]} would be overwritten by what is made of it; name another folder with --out")
    for name, entries in lists.items():
        write_list(out / f"{name}.txt", entries)
        print(f"wrote {out / f'{name}.txt'}: {len(entries)} lines")
    if reading.classes:
        write_names(out / "classes.txt", reading.classes)
        print(f"wrote {out / 'classes.txt'}: {len(reading.classes)} names")
    advise(lists, library, videos=videos, out=out)
    return 0


# ---------------------------------------------------------------------------------------------- what is wanted


def choice_of(args: argparse.Namespace) -> "Choice":
    """What is wanted of annotations that offer several things."""
    from iwin.prepare.formats import Choice

    folds = [word for word in args.split if word in FOLDS]
    if len(folds) > 1:
        raise DataError(f"--split {' '.join(folds)}: one division at a time; give each its own --out")
    return Choice(
        fold=int(folds[0]) if folds else 1,
        tags=() if args.tags == ["all"] else tuple(args.tags),
        segments=args.segments,
        path_column=args.path_column,
        label_column=args.label_column,
        named=args.classes is not None,
    )


def wanted(reading: "Reading", words: Sequence[str]) -> "Reading":
    """The rows of the splits that are asked for; a single split without a name becomes the one that is.

    Raises:
        DataError: if the annotations do not have such a split.
    """
    from iwin.prepare.formats.rows import UNDIVIDED

    names = [word for word in words if word in SPLITS]
    if not names:
        return reading
    if list(reading.splits) == [UNDIVIDED] and len(names) == 1:
        reading.splits = {names[0]: reading.splits[UNDIVIDED]}
    if lacking := [name for name in names if name not in reading.splits]:
        there = ", ".join(name or "one without a name" for name in reading.splits)
        raise DataError(f"--split {lacking[0]}: the annotations have no such split, but {there}")
    reading.splits = {name: rows for name, rows in reading.splits.items() if name in names}
    return reading


def class_names(name: str | None) -> tuple[str, ...] | None:
    """The class names that `--classes` gives."""
    from iwin.prepare.formats.source import lines_of

    if name is None:
        return None
    path = Path(name)
    if path.is_file():
        return tuple(lines_of(path))
    if name.lower() == "kinetics400":
        from torchvision.models.video import Swin3D_T_Weights

        return tuple(Swin3D_T_Weights.KINETICS400_V1.meta["categories"])
    raise DataError(f"--classes {name}: there is no such file; it holds a class name a line (or say kinetics400)")


# ---------------------------------------------------------------------------------------------- what is found


def on_disk(found: "Format", reading: "Reading", library: "Library", args: argparse.Namespace) -> "dict[str, Split]":
    """The videos that are there; frame folders where there is no video."""
    from iwin.prepare.formats.writing import resolve

    if args.segments and found.name != "activitynet":
        raise DataError(f"--segments: {found.title} tell of whole videos; leave it out")
    parts = any(row.part for rows in reading.splits.values() for row in rows)
    frames = args.frames or args.segments or (parts and bool(library.frames))
    splits = resolve(reading, library, frames=frames, keep_missing=args.keep_missing)
    if not frames and library.frames and not any(split.found for split in splits.values()):
        as_frames = resolve(reading, library, frames=True)
        if any(split.found for split in as_frames.values()):
            splits, frames = as_frames, True
    if frames and args.keep_missing:
        raise DataError("--keep-missing: a line needs the number of frames, which only the frame folder tells")
    return splits


def report(found: "Format", reading: "Reading", splits: "Mapping[str, Split]", args: argparse.Namespace) -> None:
    """Say what the annotations are and what of them is there."""
    print(f"read as {found.title} (--format {found.name})")
    for note in reading.notes:
        print(f"note: {note}", file=sys.stderr)
    for name, split in splits.items():
        print(f"{name or 'videos'}: {summary(split, reading.classes)}")
        for note in notes(split, found):
            print(f"note: {name or 'videos'}: {note}", file=sys.stderr)
    if "" in splits and splits[""].entries:
        print(
            f"note: the annotations do not divide the videos; {args.val_share:g} of each class become val.txt "
            "(--val-share, --seed), or --split names the one list that they are",
            file=sys.stderr,
        )


def summary(split: "Split", classes: Sequence[str] | None) -> str:
    """Counts of a split, in a line."""
    counts = split.per_class()
    parts = [f"{split.listed} listed", f"{split.found} found", f"{len(split.missing)} missing"]
    if counts:
        of = f" of {len(classes)}" if classes else ""
        parts.append(f"{len(counts)}{of} classes, {min(counts.values())} to {max(counts.values())} videos each")
    return ", ".join(parts)


def notes(split: "Split", found: "Format") -> list[str]:
    """What is to be said about rows that are no plain lines of the list."""
    said = []
    if split.missing:
        more = ", …" if len(split.missing) > _SHOWN else ""
        said.append(f"{len(split.missing)} are not there: {', '.join(split.missing[:_SHOWN])}{more}")
    if split.unclear:
        name, first, second = split.unclear[0]
        said.append(f"{len(split.unclear)} left out that several files may be: {name} may be {first} or {second}")
    if split.unlabelled:
        said.append(f"{split.unlabelled} without a label are left out")
    if split.repeated:
        said.append(f"{split.repeated} rows repeat another one")
    if split.conflicts:
        said.append(f"{len(split.conflicts)} videos have rows that disagree; the first is kept: {split.conflicts[0]}")
    if split.beyond:
        said.append(f"{len(split.beyond)} name more frames than their folders hold, such as {split.beyond[0]}")
    if found.is_general and split.elsewhere:
        name, path = split.elsewhere[0]
        said.append(f"{len(split.elsewhere)} lie in folders that are not named: {name} is taken to be {path}")
    return said


def nothing_found(splits: "Mapping[str, Split]", videos: Path) -> str:
    """A sentence saying why there is nothing to write."""
    listed = sum(split.listed for split in splits.values())
    unclear = [each for split in splits.values() for each in split.unclear]
    if unclear:
        return (
            f"{videos}: every video may be several files, such as {unclear[0][1]} and {unclear[0][2]}; narrow --videos"
        )
    first = next((name for split in splits.values() for name in split.missing), None)
    if first is None:
        return "no video of these splits has a label"
    return (
        f"{videos}: none of the {listed} videos is there, the first would be {first}; name their folder with --videos, "
        "or list them all the same with --keep-missing"
    )


def advise(lists: "Mapping[str, Sequence[Entry]]", library: "Library", *, videos: Path, out: Path) -> None:
    """Say how to use the lists."""
    of_frames = frame_settings(lists, library)
    several = any(len(entry.labels) > 1 for entries in lists.values() for entry in entries)
    root = [] if out.samefile(videos) else ["--root", str(videos)]
    is_folder = "train" in lists or root or of_frames
    command = [
        "iwin",
        "data",
        "check",
        *([str(out)] if is_folder else [str(out / f"{name}.txt") for name in lists]),
        *root,
    ]
    if of_frames:
        command.append("--with-offset" if "with_offset=True" in of_frames else "--frame-folders")
    print("to check them:", shlex.join(command + ["--multi-label"] * several))
    if out.samefile(videos) and {"train", "val"} <= lists.keys() and not of_frames and not several:
        print(f"to train on them: iwin train CONFIG --data {out}")
        return
    print(f"their paths are relative to {videos}; settings for them:")
    for name in lists:
        settings = [f"ann_file={out / f'{name}.txt'}", f"data_prefix={videos}", *of_frames]
        print("  " + " ".join(f"data.{name}.{setting}" for setting in settings + ["multi_class=True"] * several))
    if several:
        print("  model.cls_head.multi_class=True model.cls_head.loss_cls.type=BCELossWithLogits")
        print("  evaluation.metrics=[mean_average_precision]")
    if of_frames:
        print("  and RawFrameDecode in the pipelines, in the place of DecordInit and DecordDecode")


def frame_settings(lists: "Mapping[str, Sequence[Entry]]", library: "Library") -> list[str]:
    """The settings that lists of frame folders need; none for lists of videos."""
    entries = [entry for part in lists.values() for entry in part if entry.frames]
    if not entries:
        return []
    names = Counter((frames.template, frames.first) for frames in (library.frames_of(entry.path) for entry in entries))
    ((template, first), _), *others = names.most_common()
    if others:
        print(f"note: {len(others)} other ways of naming frames, such as {others[0][0][0]}", file=sys.stderr)
    settings = ["type=RawframeDataset", f"filename_tmpl={template}"]
    settings += [f"start_index={first}"] * (first != 1)
    return settings + ["with_offset=True"] * (len(entries[0].frames) > 1)
