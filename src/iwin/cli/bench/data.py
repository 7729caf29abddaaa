"""`iwin bench data`: how many clips a second one core brings from files to batches, beside other readers."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from iwin.cli.common import output_file

if TYPE_CHECKING:
    from pathlib import Path

    from iwin.bench.data import Kind

SIZES = {"340x256": (256, 340), "1280x720": (720, 1280)}
"""Videos that are made where none are given: (height, width)."""

STAGES = ("open", "seek", "decode", "convert", "resize", "normalise", "collate")


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "data",
        help="speed of reading videos",
        description="Measure clips a second on one core, from file to batch, in the training and the 4x3 test pattern. "
        "Other readers (decord, OpenCV) take part where they are installed: pip install 'iwin[bench]'.",
    )
    parser.add_argument("--videos", nargs="+", metavar="FILE", help="read these instead of videos made for the purpose")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="sizes to make (default: both)")
    parser.add_argument("--count", type=int, default=2, metavar="N", help="videos of each size (default 2)")
    parser.add_argument(
        "--patterns", nargs="+", choices=("train", "test"), default=["train", "test"], help="what to take from a video"
    )
    parser.add_argument("--readers", nargs="+", metavar="NAME", help="iwin, 'iwin crop_first', 'iwin swscale', decord")
    parser.add_argument("--resized", action="store_true", help="also read what `iwin data resize` makes of the videos")
    parser.add_argument("--clips", type=int, default=16, metavar="N", help="clips of a round (default 16; test: 4)")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="videos of a batch (default 4)")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="rounds in which each has a turn (default 5)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the record there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the record."""
    import tempfile
    from pathlib import Path

    from iwin.bench.data import installed_readers, keep_to_one_core, measure, record
    from iwin.bench.pipelines import READERS
    from iwin.errors import ConfigError
    from iwin.files import save_json

    counts = {"--count": args.count, "--clips": args.clips, "--batch": args.batch, "--rounds": args.rounds}
    if wrong := [option for option, value in counts.items() if value < 1]:
        raise ConfigError(f"{', '.join(wrong)} takes numbers from 1 up")
    names = [reader.name for reader in READERS]
    if unknown := [name for name in args.readers or () if name not in names]:
        raise ConfigError(f"there is no reader {unknown[0]!r}; choose from: {', '.join(names)}")
    json_file = output_file(args.json, [".json"]) if args.json else None
    readers = installed_readers(args.readers)
    for name in args.readers or names:
        if name not in [reader.name for reader in readers]:
            say(f"{name} is not installed and left out; pip install 'iwin[bench]'")
    if not readers:
        raise ConfigError("none of these readers is installed: pip install 'iwin[bench]'")
    core = keep_to_one_core()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(
            find_kinds(args, Path(folder)),
            patterns=args.patterns,
            readers=readers,
            clips=args.clips,
            batch=args.batch,
            rounds=args.rounds,
            say=say,
        )
        found = record(["iwin", *sys.argv[1:]], results, core=core, batch=args.batch)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(speed_table(found))
    console.print(stage_table(found))
    if json_file is not None:
        save_json(json_file, found)
        print(json_file)
    return 0


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


def find_kinds(args: argparse.Namespace, folder: "Path") -> "list[Kind]":
    """The videos, made or given, and what resizing makes of them.

    Raises:
        VideoError: if a given file is no video.
    """
    from iwin.bench.data import Kind, make_kinds, resize_kinds
    from iwin.data.decode import open_video

    if args.videos:
        for path in args.videos:
            open_video(path).close()
        kinds = [Kind("given", tuple(args.videos))]
    else:
        kinds = make_kinds(folder, [SIZES[name] for name in args.sizes], count=args.count, say=say)
    if args.resized:
        kinds += [made for kind in kinds for made in resize_kinds(folder, kind, say=say)]
    return kinds


def speed_table(found: dict[str, Any]) -> Table:
    """A row for each reader on each kind of video in each pattern."""
    table = Table(title="File to batch, one core", title_justify="left", caption_justify="left")
    for name in ("videos", "pattern", "reader"):
        table.add_column(name)
    for name in ("MB", "clips/s", "x decord", "x opencv", "x original", "pipe bytes", "differs by"):
        table.add_column(name, justify="right")
    for told in found["results"]:
        smaller = told["bytes_of_original"]
        table.add_row(
            told["videos"],
            told["pattern"],
            told["reader"],
            f"{told['num_bytes'] / 1e6:.1f}" + (f" ({smaller:.2f}x)" if smaller else ""),
            spread(told["clips_per_second"]),
            *(spread(told.get(f"times_{name}")) for name in ("decord", "opencv", "original")),
            f"{told.get('pipe_bytes_of_decord', 1):.3f}" if "pipe_bytes_of_decord" in told else "",
            f"{told['difference']:.2f}",
        )
    table.caption = (
        "median (min-max) over the rounds, ratios round by round; a clip of the test pattern is a video's 12 views\n"
        "MB: of the files (beside the originals); pipe bytes: what travels from the decoder process, beside decord;\n"
        "differs by: mean difference from iwin's pixels in grey levels"
    )
    return table


def stage_table(found: dict[str, Any]) -> Table:
    """Where the time of a clip goes."""
    table = Table(title="Milliseconds of a clip, stage by stage", title_justify="left", caption_justify="left")
    for name in ("videos", "pattern", "reader"):
        table.add_column(name)
    for name in (*STAGES, "sum", "outside decode"):
        table.add_column(name, justify="right")
    for told in found["results"]:
        stages = told["stages_ms"]
        outside = f"{100 * told['outside_decode']:.0f} %" if "convert" in stages else ""
        table.add_row(
            told["videos"],
            told["pattern"],
            told["reader"],
            *(f"{stages[stage]:.1f}" if stage in stages else "" for stage in STAGES),
            f"{sum(stages.values()):.1f}",
            outside,
        )
    table.caption = "decode: FFmpeg's decoder alone; of other readers with seeking and the conversion to RGB"
    return table


def spread(values: dict[str, float] | None) -> str:
    """Median, minimum and maximum."""
    return "" if values is None else f"{values['median']:.2f} ({values['min']:.2f}-{values['max']:.2f})"
