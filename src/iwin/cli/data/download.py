"""`iwin data download`: fetch what has direct links, and say where the rest is."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import console
from iwin.errors import DataError

if TYPE_CHECKING:
    from iwin.prepare.addresses import DataSet, Part

_SHOWN = 5
"""Files of a part that are named."""


@dataclass(frozen=True)
class Wanted:
    """A file to be fetched.

    Attributes:
        url: its address.
        path: where it goes.
        size: bytes, or None where the server does not say.
    """

    url: str
    path: Path
    size: int | None


def add_parser(steps: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the step."""
    parser = steps.add_parser(
        "download",
        help="fetch a data set's files",
        description="Fetch the files of a data set that have direct links, and say where the others are. It shows what "
        "would be fetched and asks; what was begun is continued.",
    )
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help="such as ucf101; without one, they are listed")
    parser.add_argument("--out", metavar="DIR", help="folder for the files")
    parser.add_argument("--part", nargs="+", metavar="NAME", help="parts to fetch (default: annotations)")
    parser.add_argument("--yes", action="store_true", help="fetch without asking")
    parser.add_argument("--mirror", metavar="URL", help="another server that has the files under the same paths")
    parser.add_argument("--attempts", type=int, default=8, metavar="N", help="without any progress (default 8)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show what there is, ask, fetch."""
    from iwin.prepare.addresses import DATA_SETS, find_data_set

    if args.dataset is None:
        for each in DATA_SETS:
            print(f"{each.name}: {each.title}, {', '.join(part.name for part in each.parts) or 'no direct links'}")
        return 0
    data_set = find_data_set(args.dataset)
    print(f"{data_set.title}, {data_set.page}")
    if data_set.advice:
        print(data_set.advice)
    for part in data_set.parts:
        print(f"  --part {part.name}: {part.what}")
    if not data_set.parts and args.out is None:
        return 0
    if not data_set.parts:
        raise DataError(f"{data_set.title} has no direct links; nothing was fetched")
    if args.out is None:
        raise DataError("nothing was fetched; name the folder for the files with --out")
    if args.attempts < 1:
        raise DataError("--attempts takes a number from 1 up")
    parts = chosen(data_set, args.part)
    files = [file for part in parts for file in files_of(part, Path(args.out), args)]
    missing = [file for file in files if not file.path.exists()]
    show(missing, already=len(files) - len(missing))
    if missing and not (args.yes or agreed()):
        raise DataError("nothing was fetched; --yes fetches without asking")
    fetch_all(missing, attempts=args.attempts)
    return 0


def chosen(data_set: "DataSet", names: Sequence[str] | None) -> "list[Part]":
    """The parts that are asked for.

    Raises:
        DataError: if there is no such part.
    """
    known = {part.name: part for part in data_set.parts}
    if lacking := [name for name in names or () if name not in known]:
        raise DataError(f"--part {lacking[0]}: {data_set.title} has {', '.join(known)}")
    return [known[name] for name in names or ("annotations",)]


def files_of(part: "Part", out: Path, args: argparse.Namespace) -> list[Wanted]:
    """The files of a part, with their sizes; its index is fetched, where there is one, for it names them."""
    from iwin.prepare.addresses import mirrored
    from iwin.prepare.download import ask, fetch
    from iwin.prepare.formats.source import lines_of

    urls = list(part.urls)
    folder = out / part.folder
    if part.index:
        index = folder / part.index.rpartition("/")[2]
        urls += lines_of(fetch(mirrored(part.index, args.mirror), index, attempts=args.attempts))
    wanted = []
    for url in urls:
        address, path = mirrored(url, args.mirror), folder / url.rpartition("/")[2]
        size = None if path.exists() or part.index else ask(address, attempts=args.attempts).size
        wanted.append(Wanted(address, path, size))
    return wanted


def show(files: Sequence[Wanted], *, already: int) -> None:
    """Print what would be fetched."""
    if already:
        print(f"{already} files are there already")
    known = sum(file.size or 0 for file in files)
    size = f"{readable(known)}" if files and all(file.size is not None for file in files) else "size not told"
    if files:
        print(f"to fetch: {len(files)} files, {size}")
    for file in files[:_SHOWN]:
        print(f"  {file.url} -> {file.path}")
    if len(files) > _SHOWN:
        print(f"  and {len(files) - _SHOWN} more")


def agreed() -> bool:
    """Whether somebody is there and says yes."""
    return sys.stdin.isatty() and input("fetch them? [y/N] ").strip().lower() in ("y", "yes")


def fetch_all(files: Sequence[Wanted], *, attempts: int) -> None:
    """Fetch files one after another, with a bar for each where there is a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from iwin.prepare.download import fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console(), transient=True) as bars:
        for number, file in enumerate(files, 1):
            bar = bars.add_task(f"{number}/{len(files)} {file.path.name}", total=file.size)

            def progress(done: int, size: int | None, bar: "int" = bar) -> None:
                bars.update(bar, completed=done, total=size)  # type: ignore[arg-type]

            fetch(file.url, file.path, attempts=attempts, progress=progress)
            bars.remove_task(bar)
            print(f"fetched {file.path} ({readable(file.path.stat().st_size)})")


def readable(size: int) -> str:
    """A number of bytes for people: 1.2 GB."""
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g} {unit}"
