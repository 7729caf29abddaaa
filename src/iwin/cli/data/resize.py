"""`iwin data resize`: smaller videos with dense keyframes, which training decodes several times as fast."""

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import idle_options, output_folder
from iwin.cli.data.common import (
    add_sources,
    add_work_options,
    check_least,
    conclude,
    counted,
    file_size,
    follow,
    read_sources,
    work_options,
)
from iwin.errors import ConfigError

if TYPE_CHECKING:
    from iwin.prepare.convert import Outcome
    from iwin.prepare.transcode import Recipe


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "resize",
        help="make videos small and quick to decode",
        description="Re-encode videos in MP4 with a short side and dense keyframes, and write lists of them. "
        "A second run does what is left. Exit status 1 if a video could not be made.",
    )
    add_sources(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the videos and their lists")
    parser.add_argument("--short-side", type=int, default=256, metavar="N", help="in pixels, even (default 256)")
    parser.add_argument("--upscale", action="store_true", help="enlarge smaller videos, too")
    parser.add_argument(
        "--keyframe-interval",
        type=int,
        default=16,
        metavar="N",
        help="frames from one keyframe to the next (default 16); 1 is quickest to read and largest",
    )
    parser.add_argument(
        "--codec",
        help="h264, or mpeg2 for a keyframe interval of 1 alone, where it decodes in half of the time (default: mpeg2 "
        "there, h264 for all else)",
    )
    parser.add_argument("--crf", type=int, default=23, metavar="N", help="quality, 0 to 51, 0 is best (default 23)")
    parser.add_argument("--preset", help="of x264, from ultrafast to veryslow (default medium)")
    parser.add_argument("--bframes", type=int, metavar="N", help="in a row: fewer bytes, slower to read (default 0)")
    parser.add_argument(
        "--small-files", action="store_true", help="with the coding tools that save bytes and are slow to decode"
    )
    parser.add_argument(
        "--measure", type=int, default=16, metavar="N", help="videos to time before and after; 0: none (default 16)"
    )
    add_work_options(parser, time_limit=120)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the videos and lists; print how many bytes and how much time they take now."""
    from iwin.prepare.convert import convert, plan_tasks
    from iwin.prepare.transcode import is_whole, make_video

    recipe = read_recipe(args)
    work = work_options(args)
    check_least(args.measure, 0, "--measure")
    out = output_folder(args.out)
    splits = read_sources(args)
    tasks = plan_tasks(splits, out, suffix=".mp4")
    making = convert(
        partial(make_video, recipe=recipe),
        tasks,
        settings=asdict(recipe),
        is_whole=is_whole,
        journal=out / "resize.jsonl",
        processes=work.processes,
        time_limit=work.time_limit,
    )
    outcomes = list(follow(making, title="resizing", total=len(tasks)))
    status = conclude(splits, outcomes, out)
    print_change(outcomes, videos=args.measure)
    return status


def read_recipe(args: argparse.Namespace) -> "Recipe":
    """What the options ask for.

    Raises:
        ConfigError: if a value is out of range.
    """
    from iwin.prepare.transcode import CODECS, MPEG2_CRF, PRESETS, Recipe

    if args.short_side < 2 or args.short_side % 2:
        raise ConfigError(f"--short-side {args.short_side}: is an even number of pixels, for H.264 halves the colours")
    check_least(args.keyframe_interval, 1, "--keyframe-interval")
    if not 0 <= args.crf <= 51:
        raise ConfigError(f"--crf {args.crf}: is a number from 0 (lossless) to 51")
    if args.codec not in (None, *CODECS):
        raise ConfigError(f"--codec {args.codec}: is none of {', '.join(CODECS)}")
    if args.codec == "mpeg2" and (args.keyframe_interval > 1 or args.crf not in MPEG2_CRF):
        raise ConfigError(
            f"--codec mpeg2: needs --keyframe-interval 1 and --crf {MPEG2_CRF[0]} to {MPEG2_CRF[-1]}; take h264"
        )
    if args.preset not in (None, *PRESETS):
        raise ConfigError(f"--preset {args.preset}: is none of x264's, which are {', '.join(PRESETS)}")
    if args.bframes is not None and not 0 <= args.bframes <= 16:
        raise ConfigError(f"--bframes {args.bframes}: is a number from 0 to 16")
    recipe = Recipe(
        short_side=args.short_side,
        keyframe_interval=args.keyframe_interval,
        crf=args.crf,
        preset=args.preset or Recipe.preset,
        bframes=args.bframes or Recipe.bframes,
        fast_decode=not args.small_files,
        upscale=args.upscale,
        codec=args.codec,
    )
    idle = {"bframes": "every frame is a keyframe"} if recipe.keyframe_interval == 1 else {}
    if recipe.is_mpeg2:
        idle |= dict.fromkeys(("preset", "small_files"), "it is for H.264, and MPEG-2 is made; see --codec")
    for note in idle_options(args, idle):
        print(f"note: {note}", file=sys.stderr)
    return recipe


def print_change(outcomes: "list[Outcome]", *, videos: int) -> None:
    """Print bytes of all videos and decoding time of some, before and after."""
    from iwin.prepare.timing import compare_decoding

    made = [outcome for outcome in outcomes if outcome.facts is not None]
    if not made:
        return
    before = sum(Path(outcome.task.sample.path).stat().st_size for outcome in made)
    after = sum(outcome.facts["num_bytes"] for outcome in made if outcome.facts is not None)
    print(f"size: {file_size(before)} before, {file_size(after)} after: {after / before:.2f} of it")
    if videos:
        step = max(1, len(made) // videos)
        pairs = [(outcome.task.sample.path, str(outcome.task.target)) for outcome in made[::step][:videos]]
        old, new = compare_decoding(pairs)
        print(
            f"decoding 32 frames, 2 apart, from a random start, one core, {counted(len(pairs), 'video')}: "
            f"{old * 1e3:.1f} ms a video before, {new * 1e3:.1f} ms after: {old / new:.2f} times as fast"
        )
