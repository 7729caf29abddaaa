"""`iwin data frames`: videos as folders of pictures, for RawframeDataset."""

import argparse
from dataclasses import asdict
from functools import partial

from iwin.cli.common import output_folder
from iwin.cli.data.common import (
    add_sources,
    add_work_options,
    check_least,
    conclude,
    file_size,
    follow,
    read_sources,
    work_options,
)
from iwin.errors import ConfigError


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "frames",
        help="extract videos into folders of pictures",
        description="Write every frame as a JPEG picture into a folder for each video, and lists of `folder frames "
        "label` lines. A second run does what is left. Exit status 1 if a video could not be extracted.",
    )
    add_sources(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the folders and their lists")
    parser.add_argument("--template", default="img_{:05}.jpg", help="names of the pictures (default img_{:05}.jpg)")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="number of the first picture (default 1)")
    parser.add_argument("--quality", type=int, default=95, metavar="N", help="of the JPEG, 1 to 95 (default 95)")
    parser.add_argument("--short-side", type=int, metavar="N", help="scale larger videos down to it (default: as is)")
    add_work_options(parser, time_limit=120)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the pictures and lists."""
    from iwin.prepare.convert import convert, plan_tasks
    from iwin.prepare.extract import Pictures, check_template, is_whole, make_folder

    check_template(args.template)
    check_least(args.first, 0, "--first")
    if not 1 <= args.quality <= 95:
        raise ConfigError(f"--quality {args.quality}: is a number from 1 to 95")
    if args.short_side is not None:
        check_least(args.short_side, 1, "--short-side")
    pictures = Pictures(args.template, args.first, args.quality, args.short_side)
    work = work_options(args)
    out = output_folder(args.out)
    splits = read_sources(args)
    tasks = plan_tasks(splits, out, suffix="")
    making = convert(
        partial(make_folder, pictures=pictures),
        tasks,
        settings=asdict(pictures),
        is_whole=is_whole,
        journal=out / "frames.jsonl",
        processes=work.processes,
        time_limit=work.time_limit,
    )
    outcomes = list(follow(making, title="extracting", total=len(tasks)))
    status = conclude(splits, outcomes, out, frame_folders=True)
    made = [outcome.facts for outcome in outcomes if outcome.facts is not None]
    if made:
        frames, size = (sum(facts[name] for facts in made) for name in ("num_frames", "num_bytes"))
        print(f"{frames:,} pictures, {file_size(size)}")
    return status
