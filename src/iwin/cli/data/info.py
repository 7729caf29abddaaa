"""`iwin data info`: a data set in figures and histograms."""

import argparse
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from iwin.cli.common import output_file
from iwin.cli.data.common import (
    add_sources,
    add_work_options,
    duration,
    file_size,
    follow,
    read_sources,
    size_unit,
    unique_samples,
    work_options,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from iwin.prepare.statistics import Spread, Statistics
    from iwin.viz.histograms import Panel

_SHOWN = 3
"""How many codecs, formats and sizes are named."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "info",
        help="count and measure videos",
        description="Open every video and print how many there are of each class, how long, how large and in which "
        "codecs. Exit status 0 whatever is found; `iwin data check` judges.",
    )
    add_sources(parser)
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--histograms", metavar="FILE", help="draw how they lie, .png, .pdf or .svg (needs Matplotlib)")
    parser.add_argument(
        "--journal", metavar="FILE", help="of an earlier `iwin data check`: its findings are used again"
    )
    add_work_options(parser, time_limit=60)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table and write the files."""
    from iwin.files import save_json
    from iwin.prepare.scan import scan
    from iwin.prepare.statistics import measure

    json_file = output_file(args.json, [".json"]) if args.json else None
    picture = output_file(args.histograms, [".png", ".pdf", ".svg"]) if args.histograms else None
    journal = output_file(args.journal, [".jsonl"]) if args.journal else None
    work = work_options(args)
    splits = read_sources(args, refuse=False)
    samples = unique_samples(splits)
    looking = scan(samples, depth="open", journal=journal, processes=work.processes, time_limit=work.time_limit)
    facts = {found.path: found for found in follow(looking, title="measuring", total=len(samples))}
    found = [measure(split, facts) for split in splits]
    print_table(found)
    if json_file is not None:
        save_json(json_file, {statistics.name: statistics.to_dict() for statistics in found})
        print(f"figures: {json_file}")
    if picture is not None:
        draw(found, picture)
        print(f"histograms: {picture}")
    return 0


def print_table(found: "Sequence[Statistics]") -> None:
    """A column for each split."""
    table = Table(title="data set; of several values: least / median / greatest", title_justify="left")
    table.add_column("figure")
    for statistics in found:
        table.add_column(statistics.name, justify="right", overflow="fold")
    for rows in zip(*(rows_of(statistics) for statistics in found), strict=True):
        table.add_row(rows[0][0], *(cell for _, cell in rows))
    Console().print(table)


def rows_of(statistics: "Statistics") -> "Iterator[tuple[str, str]]":
    """Name and text of each figure."""
    from iwin.prepare.statistics import MEASURES, Spread

    yield "videos", f"{statistics.videos:,}"
    yield "cannot be opened", f"{statistics.bad:,}"
    yield "classes", f"{statistics.classes:,}"
    yield "videos of a class", spread_text(Spread.of(statistics.per_class.values()))
    yield "labels of a video, mean", f"{statistics.labels_per_video:.2f}"
    yield "time", duration(statistics.hours * 3600)
    yield "bytes", file_size(statistics.num_bytes)
    for name, unit in MEASURES.items():
        yield unit, spread_text(Spread.of(statistics.values[name]), is_bytes=name == "size")
    yield "sizes", most_frequent(statistics.sizes)
    yield "codecs", most_frequent(statistics.codecs)
    yield "formats", most_frequent(statistics.containers)


def spread_text(spread: "Spread | None", *, is_bytes: bool = False) -> str:
    """Minimum, median and maximum."""
    if spread is None:
        return "-"
    values = (spread.minimum, spread.median, spread.maximum)
    return " / ".join(file_size(value) if is_bytes else f"{value:.5g}" for value in values)


def most_frequent(counts: "Mapping[str, int]") -> str:
    """The first words with their numbers."""
    shown = [f"{word} ({count:,})" for word, count in list(counts.items())[:_SHOWN]]
    rest = len(counts) - len(shown)
    return ", ".join([*shown, f"{rest} more"] if rest else shown) or "-"


def draw(found: "Sequence[Statistics]", path: "Path") -> None:
    """Draw the histograms."""
    from iwin.viz.histograms import draw_histograms

    draw_histograms(panels_of(found), path, title=", ".join(f"{one.name}: {one.videos:,} videos" for one in found))


def panels_of(found: "Sequence[Statistics]") -> "list[Panel]":
    """A histogram for each measure, and one of the videos in a class."""
    from iwin.prepare.statistics import MEASURES
    from iwin.viz.histograms import Panel

    panels = [Panel("videos of a class", "classes", {one.name: list(one.per_class.values()) for one in found})]
    for name, words in MEASURES.items():
        values = {one.name: one.values[name] for one in found}
        if name == "size":
            unit, scale = size_unit(max((size for sizes in values.values() for size in sizes), default=0))
            words = f"{unit} of a video"
            values = {split: [size / scale for size in sizes] for split, sizes in values.items()}
        panels.append(Panel(words, "videos", values))
    return panels
