"""Arguments and output that the steps of `iwin data` share."""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from iwin.cli.common import console
from iwin.errors import ConfigError

if TYPE_CHECKING:
    from iwin.data.annotations import Sample
    from iwin.prepare.convert import Outcome
    from iwin.prepare.splits import Split

T = TypeVar("T")

_INTERVAL = 30.0
"""Seconds between two lines that tell how far the work is, where there is no terminal for a bar."""


def add_sources(parser: argparse.ArgumentParser) -> None:
    """`SOURCE …`, `--root`, and the forms of lists."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a list (.txt, .csv), a metadata table, an index of shards, a folder of class folders, or a folder "
        "with train/ and val/, or train.txt and val.txt, in it",
    )
    parser.add_argument("--root", metavar="DIR", help="what a list's paths are relative to (default: its folder)")
    parser.add_argument("--multi-label", action="store_true", help="a list's lines can end in several labels")
    parser.add_argument(
        "--frame-folders", action="store_true", help="a list names folders of frames, in lines of `path frames label`"
    )
    parser.add_argument("--with-offset", action="store_true", help="the same, in lines of `path offset frames label`")


def add_work_options(parser: argparse.ArgumentParser, *, time_limit: float) -> None:
    """`--processes` and `--time-limit`."""
    parser.add_argument("--processes", type=int, metavar="N", help="files worked on at once (default: one a core)")
    parser.add_argument(
        "--time-limit",
        type=float,
        default=time_limit,
        metavar="S",
        help=f"seconds without progress after which the work on a file is killed (default {time_limit:g})",
    )


class Work(NamedTuple):
    """How the work on many files is shared out.

    Attributes:
        processes: files worked on at once.
        time_limit: seconds without progress after which the work on a file is killed.
    """

    processes: int
    time_limit: float


def work_options(args: argparse.Namespace) -> Work:
    """What `add_work_options` declared.

    Raises:
        ConfigError: if a number is out of range.
    """
    from iwin.prepare.pool import default_processes

    processes = default_processes() if args.processes is None else args.processes
    check_least(processes, 1, "--processes")
    if args.time_limit <= 0:
        raise ConfigError(f"--time-limit {args.time_limit:g}: is a number of seconds above 0")
    return Work(processes, args.time_limit)


def check_least(value: int, least: int, option: str) -> None:
    """Refuse numbers that are too small.

    Raises:
        ConfigError: naming the option.
    """
    if value < least:
        raise ConfigError(f"{option} {value}: is a whole number from {least} up")


def read_sources(args: argparse.Namespace, *, refuse: bool = True) -> "list[Split]":
    """The splits that SOURCE and the options beside it name.

    Args:
        args: what `add_sources` declared.
        refuse: whether videos that training cannot use for their labels are refused.
    """
    from iwin.data.annotations import FrameList
    from iwin.prepare.splits import read_splits, refuse_unfit

    frames = FrameList(with_offset=args.with_offset) if args.frame_folders or args.with_offset else None
    splits = read_splits(args.sources, root=args.root, multi_label=args.multi_label, frames=frames)
    if refuse:
        refuse_unfit(splits)
    for split in splits:
        if split.frames is not None and split.frames[:2] != FrameList()[:2]:
            template, start, _ = split.frames
            print(f"{split.name}: frames are named as by filename_tmpl={template} start_index={start}", file=sys.stderr)
    return splits


def unique_samples(splits: "Iterable[Split]") -> "list[Sample]":
    """The videos of some splits, each file and each part of a folder of frames once."""
    return list({sample.key: sample for split in splits for sample in split.samples}.values())


def follow(items: Iterable[T], *, title: str, total: int) -> Iterator[T]:
    """Iterate and tell how far it is and how long it will take: a bar on a terminal, else a line now and then."""
    from iwin.engine.log import progress

    screen = console()
    if screen.is_terminal:
        yield from progress(items, console=screen, title=title, total=total)
        return
    start = told = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - told >= _INTERVAL and done < total:
            told = now
            left = (now - start) / done * (total - done)
            screen.print(f"{title}: {done} of {total}, about {duration(left)} left", highlight=False)


def conclude(
    splits: "Sequence[Split]", outcomes: "Sequence[Outcome]", out: Path, *, frame_folders: bool = False
) -> int:
    """Name what could not be made, write the lists of what was, and say so; the exit status."""
    from iwin.prepare.convert import write_lists

    failed = [outcome for outcome in outcomes if outcome.reason is not None]
    for reason in sorted(str(outcome.reason) for outcome in failed):
        print(reason, file=sys.stderr)
    made = sum(outcome.facts is not None and outcome.is_new for outcome in outcomes)
    print(f"{made:,} made, {len(outcomes) - made - len(failed):,} there already, {len(failed):,} not possible")
    for path, count in write_lists(splits, outcomes, out, frame_folders=frame_folders):
        print(f"list: {path}, {counted(count, 'video')}, paths relative to {out}")
    return 1 if failed else 0


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s` or `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def file_size(count: float) -> str:
    """Bytes as people read them: `12.3 MB`."""
    unit, scale = size_unit(count)
    digits = {"B": 0, "TB": 2}.get(unit, 1)
    return f"{count / scale:.{digits}f} {unit}"


def size_unit(count: float) -> tuple[str, int]:
    """The unit in which people read so many bytes, and how many one of it is."""
    scale = 1
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 * scale:
            return unit, scale
        scale *= 1000
    return "TB", scale


def counted(count: int, noun: str) -> str:
    """`1 video`, `2 videos`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
