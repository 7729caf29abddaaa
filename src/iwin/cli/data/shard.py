"""`iwin data shard`: WebDataset tar files of bounded size, with an index."""

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import output_folder
from iwin.cli.data.common import (
    add_sources,
    add_work_options,
    check_least,
    counted,
    file_size,
    follow,
    read_sources,
    work_options,
)
from iwin.errors import ConfigError

if TYPE_CHECKING:
    from iwin.cli.data.common import Work
    from iwin.prepare.shards import Plan

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "shard",
        help="pack videos into WebDataset tar files",
        description="Pack videos and labels into tar files that WebDataset reads, with an index by which iwin opens "
        "any video in them. A second run does what is left. Exit status 1 if a video is missing.",
    )
    add_sources(parser)
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the shards; with several splits, for a folder for each"
    )
    parser.add_argument("--max-size", default="1G", metavar="BYTES", help="of a shard, such as 500M (default 1G)")
    parser.add_argument("--max-count", type=int, default=10_000, metavar="N", help="videos of a shard (default 10000)")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="random order by this seed (default: the list's)")
    add_work_options(parser, time_limit=600)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write shards and indices."""
    from iwin.prepare.shards import plan_shards

    size = byte_count(args.max_size)
    check_least(args.max_count, 1, "--max-count")
    if args.shuffle is not None:
        check_least(args.shuffle, 0, "--shuffle")
    work = work_options(args)
    out = output_folder(args.out)
    splits = read_sources(args)
    folders = [out] if len(splits) == 1 else [out / split.name for split in splits]
    plans = [
        plan_shards(split, folder, max_size=size, max_count=args.max_count, seed=args.shuffle)
        for split, folder in zip(splits, folders, strict=True)
    ]
    for plan, folder in zip(plans, folders, strict=True):
        write(plan, folder, work)
    return 1 if any(plan.lacking for plan in plans) else 0


def write(plan: "Plan", folder: Path, work: "Work") -> None:
    """Write the shards of a split, and print what became of it."""
    from iwin.prepare.shards import is_finished, write_shards

    for reason in plan.lacking:
        print(reason, file=sys.stderr)
    if is_finished(plan, folder):
        print(f"{folder}: is finished already")
        return
    writing = write_shards(plan, folder, processes=work.processes, time_limit=work.time_limit)
    for _ in follow(writing, title="packing", total=len(plan.shards)):
        pass
    members = [member for shard in plan.shards for member in shard.members]
    videos, size = counted(len(members), "video"), file_size(sum(member.size for member in members))
    print(f"{folder}: {videos}, {size}, in {counted(len(plan.shards), 'shard')}")


def byte_count(text: str) -> int:
    """`500M` as a number of bytes.

    Raises:
        ConfigError: if it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--max-size {text}: is a number of bytes such as 500M or 1G")
    return int(float(match[1]) * UNITS[match[2]])
