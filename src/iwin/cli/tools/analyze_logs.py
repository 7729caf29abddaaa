"""`iwin tool analyze_logs`: curves and times from the logs of runs, ours and upstream's."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwin.cli.common import idle_options, output_file
from iwin.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from iwin.viz.curves import Curve

_PLACES = {"epoch", "iter", "timestamp"}
"""What says where a record stands, and makes no curve of its own."""

IDLE = {"backend": "the picture is written to a file", "style": "there is one style"}


def add_parser(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the tool."""
    parser = tools.add_parser(
        "analyze_logs", help="curves and times of runs", description="Draw the curves of runs, or tell their times."
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    curves = actions.add_parser("plot_curve", help="draw values over the epochs")
    curves.add_argument("json_logs", nargs="+", metavar="LOG", help="log.jsonl, upstream's .log.json, or a work dir")
    curves.add_argument("--keys", nargs="+", default=["top1_acc"], metavar="KEY", help="values (default top1_acc)")
    curves.add_argument("--legend", nargs="+", metavar="NAME", help="names of the runs (default: of the files)")
    curves.add_argument("--title", help="title of the picture")
    curves.add_argument("--out", default="curves.png", metavar="FILE", help="picture to write (default curves.png)")
    curves.add_argument("--style", help=f"no effect: {IDLE['style']}")
    curves.add_argument("--backend", help=f"no effect: {IDLE['backend']}")
    curves.set_defaults(run=plot)
    times = actions.add_parser("cal_train_time", help="tell how long training steps took")
    times.add_argument("json_logs", nargs="+", metavar="LOG", help="log.jsonl, upstream's .log.json, or a work dir")
    times.add_argument("--include-outliers", action="store_true", help="count the first line of every epoch too")
    times.set_defaults(run=tell_times)


# ---------------------------------------------------------------------------------------------- curves


def plot(args: argparse.Namespace) -> int:
    """Draw a panel for each key with the curves of all runs."""
    import sys

    from iwin.engine.log import read_log
    from iwin.viz.curves import draw_curves

    out = output_file(args.out, [".png", ".pdf", ".svg"])
    for note in idle_options(args, IDLE):
        print(f"note: {note}", file=sys.stderr)
    names = run_names(args.json_logs, args.legend, keys=args.keys)
    runs = [(name, log, read_log(log)) for name, log in zip(names, args.json_logs, strict=True)]
    panels = {
        key: [curve for index, (name, log, records) in enumerate(runs) for curve in curves_of(key, name, log, records)]
        for key in args.keys
    }
    draw_curves(panels, out, runs=names, title=args.title)
    print(f"wrote {out}")
    return 0


def run_names(logs: Sequence[str], legend: Sequence[str] | None, *, keys: Sequence[str]) -> list[str]:
    """A name for each run."""
    if legend is None:
        paths = [Path(log) for log in logs]
        names = [path.parent.name if path.name == "log.jsonl" else path.name for path in paths]
        return names if len(set(names)) == len(names) else list(logs)
    if len(legend) == len(logs) * len(keys):
        legend = legend[:: len(keys)]  # upstream wants a name for every key of every run; here a panel is a key
    if len(legend) != len(logs):
        raise DataError(f"--legend names {len(legend)} runs, but there are {len(logs)}")
    return list(legend)


def curves_of(key: str, run: str, log: str, records: Sequence[dict[str, Any]]) -> "list[Curve]":
    """The curve of a value in training, and that in validation, of those that a run has.

    Raises:
        DataError: if the run has neither.
    """
    from iwin.viz.curves import Curve

    batches = max((record.get("iter", 1) for record in records if record["mode"] == "train"), default=1)
    curves = []
    for mode in ("train", "val"):
        points = {}  # a run that went on from an earlier state may have lines twice: the later ones count
        for record in records:
            if record["mode"] == mode and isinstance(record.get(key), int | float):
                done = record.get("iter", 0) / batches if mode == "train" else 1
                points[record["epoch"] - 1 + done] = float(record[key])
        if points:
            curves.append(Curve(run=run, mode=mode, epochs=sorted(points), values=[points[x] for x in sorted(points)]))
    if not curves:
        numbers = {name for record in records for name, value in record.items() if isinstance(value, int | float)}
        known = sorted(numbers - _PLACES)
        raise DataError(f"{log}: has no {key!r}{did_you_mean(key, known)}; it has {', '.join(known)}")
    return curves


# ---------------------------------------------------------------------------------------------- times


def tell_times(args: argparse.Namespace) -> int:
    """Print the times of training steps of each run."""
    from iwin.engine.log import read_log

    for log in args.json_logs:
        records = [record for record in read_log(log) if record["mode"] == "train" and "time" in record]
        epochs: dict[int, list[dict[str, Any]]] = {}
        for record in records:
            epochs.setdefault(record["epoch"], []).append(record)
        if not args.include_outliers:  # an epoch's first line holds the start of the decoder processes
            epochs = {epoch: lines[1:] or lines for epoch, lines in epochs.items()}
        if not epochs:
            raise DataError(f"{log}: holds no times of training")
        print("\n".join(time_lines(log, epochs)))
    return 0


def time_lines(log: str, epochs: dict[int, list[dict[str, Any]]]) -> list[str]:
    """What is to be said about the times of a run."""
    from statistics import fmean, pstdev

    means = {epoch: fmean(line["time"] for line in lines) for epoch, lines in epochs.items()}
    slowest, fastest = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
    lines = [line for of_epoch in epochs.values() for line in of_epoch]
    mean = fmean(line["time"] for line in lines)
    waited = fmean(line.get("data_time", 0.0) for line in lines) / mean
    return [
        f"{log}: {mean:.4f} s a batch, {waited:.0%} of it waiting for data",
        f"  slowest epoch {slowest}: {means[slowest]:.4f} s; fastest epoch {fastest}: {means[fastest]:.4f} s; "
        f"standard deviation over epochs {pstdev(means.values()):.4f} s",
    ]
