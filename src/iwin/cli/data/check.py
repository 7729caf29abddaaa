"""`iwin data check`: look into every file, find copies and leaks, and say whether training may start."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from iwin.cli.common import output_file
from iwin.cli.data.common import (
    add_sources,
    add_work_options,
    check_least,
    counted,
    duration,
    file_size,
    follow,
    read_sources,
    unique_samples,
    work_options,
)
from iwin.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from iwin.prepare.audit import Audit, Row
    from iwin.prepare.splits import Split

_SHOWN = 3
"""How many of equal videos are named."""


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "check",
        help="find bad files, copies, leaks and wrong labels",
        description="Look into every video. Exit status 0: training may start; 1: it should not, and why.",
    )
    add_sources(parser)
    parser.add_argument(
        "--report",
        default="data_check.json",
        metavar="FILE",
        help="where to write what was found, .json or .parquet (default data_check.json); beside it, with the ending "
        ".jsonl, a journal lets a later check pass over files that have not changed",
    )
    parser.add_argument(
        "--clean", metavar="PATH", help="write a list of the good videos; with several sources a folder of lists"
    )
    parser.add_argument("--every-frame", action="store_true", help="decode all frames, not the first, middle and last")
    parser.add_argument("--min-frames", type=int, default=1, metavar="N", help="shorter videos are unfit (default 1)")
    parser.add_argument(
        "--max-bad-share", type=float, default=0.01, metavar="P", help="of unfit videos, to start with (default 0.01)"
    )
    parser.add_argument(
        "--group-regex",
        metavar="R",
        help="what in a file's name tells the recording, which must not stand in two splits: a regular expression, "
        "ucf101, kinetics, or none (default: the known ones are recognised)",
    )
    parser.add_argument("--num-classes", type=int, metavar="N", help="classes of the model that is to be trained")
    parser.add_argument("--allow-empty-classes", action="store_true", help="classes may lack videos to train on")
    add_work_options(parser, time_limit=60)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report and the clean list, print the tables; exit status 1 if training should not start."""
    from iwin.data.annotations import ShardMember
    from iwin.prepare.audit import Rules, audit
    from iwin.prepare.report import REPORT_SUFFIXES, clean_lists, report_of, write_clean_lists, write_report
    from iwin.prepare.scan import scan

    report = output_file(args.report, REPORT_SUFFIXES)
    work = work_options(args)
    check_least(args.min_frames, 1, "--min-frames")
    if not 0 <= args.max_bad_share <= 1:
        raise ConfigError(f"--max-bad-share {args.max_bad_share:g}: is a share from 0 to 1")
    rules = Rules(
        min_frames=args.min_frames,
        max_bad_share=args.max_bad_share,
        groups=args.group_regex,
        num_classes=args.num_classes,
        allow_empty_classes=args.allow_empty_classes,
    )
    splits = read_sources(args, refuse=False)
    samples = unique_samples(splits)
    if args.clean:
        if any(isinstance(sample.stored, ShardMember) for sample in samples):
            raise ConfigError(
                f"--clean {args.clean}: a list cannot name videos in shards; check the files that these were made of"
            )
        for path in clean_lists(Path(args.clean), splits):  # told before hours of work
            output_file(str(path), [])
    looking = scan(
        samples,
        depth="all" if args.every_frame else "places",
        digests=True,
        journal=report.with_suffix(".jsonl"),
        processes=work.processes,
        time_limit=work.time_limit,
    )
    facts = {found.path: found for found in follow(looking, title="checking", total=len(samples))}
    for sample in samples:
        if (reason := facts[sample.key].reason) is not None:
            print(reason, file=sys.stderr)
    result = audit(splits, facts, rules)
    write_report(report, report_of(result, splits, rules))
    print_tables(result, splits)
    print(f"report: {report}")
    if args.clean:
        for path, split in zip(write_clean_lists(Path(args.clean), result, splits), splits, strict=True):
            print(
                f"clean list: {path}, {counted(len(result.clean(split.name)), 'video')}, paths relative to {split.root}"
            )
    if result.reasons:
        print(f"training should not start: {'; '.join(result.reasons)}")
        return 1
    print("training may start")
    return 0


def print_tables(result: "Audit", splits: "Sequence[Split]") -> None:
    """A table of the splits, and one of what is wrong where anything is."""
    screen = Console()
    table = Table(title="splits", title_justify="left")
    table.add_column("split", overflow="fold")
    for name in ("videos", "fit", "classes", "without videos", "time", "size"):
        table.add_column(name, justify="right")
    for split in splits:
        facts = [row.facts for row in result.rows if row.split == split.name]
        table.add_row(
            split.name,
            f"{len(facts):,}",
            f"{len(result.clean(split.name)):,}",
            str(split.annotations.num_classes),
            str(len(result.empty[split.name])),
            duration(sum(found.duration or 0 for found in facts)),
            file_size(sum(found.size or 0 for found in facts)),
        )
    screen.print(table)
    findings = list(rows_of_findings(result))
    if findings:
        table = Table(title="findings", title_justify="left")
        table.add_column("finding")
        table.add_column("count", justify="right")
        table.add_column("such as", overflow="fold")
        for row in findings:
            table.add_row(*row)
        screen.print(table)


def rows_of_findings(result: "Audit") -> "Iterator[tuple[str, str, str]]":
    """What was found, how often, and an example."""
    left_out: dict[str, list[Row]] = {}
    for row in result.rows:
        if row.left_out is not None:
            left_out.setdefault(row.left_out, []).append(row)
    for name, rows in sorted(left_out.items(), key=lambda item: -len(item[1])):
        yield f"unfit: {name}", f"{len(rows):,}", str(rows[0])
    for name, groups in (("equal content in one split", result.duplicates), ("in several splits", result.leaks)):
        if groups:
            more = [f"{len(groups[0]) - _SHOWN:,} more"] if len(groups[0]) > _SHOWN else []
            yield name, f"{len(groups):,}", " = ".join([*map(str, groups[0][:_SHOWN]), *more])
    for group, counts in list(result.groups.items())[:1]:
        where = ", ".join(f"{count} in {split}" for split, count in counts.items())
        yield "recordings in several splits", f"{len(result.groups):,}", f"{group}: {where}"
    for split, classes in result.empty.items():
        if classes:
            yield f"classes without videos in {split}", f"{len(classes):,}", classes[0]
    if result.odd:
        yield "odd aspect", f"{len(result.odd):,}", str(result.odd[0])
