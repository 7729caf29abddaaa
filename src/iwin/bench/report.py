"""The tables on the console."""

from collections.abc import Mapping
from math import isqrt
from textwrap import fill
from typing import Any

from rich.table import Table

from iwin.bench.variants import PEERS, baseline, find_variant

AXES = {"frames": "frames", "pixels": "side", "batch": "clips at once"}
"""What growth is measured along, by its name in records."""

AROUND = "growth around "


def table(record: dict[str, Any]) -> Table:
    """A row a variant: medians with minimum and maximum over the rounds."""
    result = Table(title=title(record), title_justify="left", caption_justify="left")
    for name in ("variant", "clips/s", "x reference", "x fp32 reference", "peak memory", "of reference", "kept"):
        result.add_column(name, justify="left" if name == "variant" else "right")
    for name in ("GMAC/s", "of matmul", "difference"):
        result.add_column(name, justify="right")
    for name, told in record["variants"].items():
        result.add_row(label(name, told["job"]), *cells(name, told))
    peaks = ", ".join(f"{name} {rate:,.0f}" for name, rate in record["matmul_gmacs_per_second"].items())
    result.caption = (
        "median (min-max) over the rounds; x reference: against the plain model in the same precision, by round;\n"
        "peak memory: above model and clips; kept: for the backward pass; difference: from the plain model in fp32\n"
        f"matrix product of this machine, GMAC/s: {peaks or 'not measured'}"
    )
    return result


def cells(name: str, told: dict[str, Any]) -> list[str]:
    """A row without its name; what has no reference in its own precision beside it is compared with none."""
    if "clips_per_second" not in told:
        return [told["error"] or "not measured"]
    same = baseline(find_variant(name))
    share, difference = told["share_of_matmul"], told["difference"]
    return [
        spread(told["clips_per_second"]),
        spread(told.get(f"times_{same}")),
        spread(told.get("times_reference-fp32")),
        mebibytes(told["peak_bytes"]),
        number(told.get(f"memory_of_{same}")),
        mebibytes(told["saved_bytes"]) + (f" ({number(ratio)})" if (ratio := told.get(f"saved_of_{same}")) else ""),
        f"{told['gmacs_per_second']:,.0f}",
        "" if share is None else f"{100 * share:.0f} %",
        "" if difference is None else f"{difference:.1e}",
    ]


def growth_table(record: Mapping[str, Any]) -> Table:
    """A row for each size that was tried, a column a variant: seconds of a clip and peak memory."""
    growth = record["growth"]
    names = dict.fromkeys(point["variant"] for points in growth.values() for point in points)
    result = Table(title=title(record, around=AROUND), title_justify="left", caption_justify="left")
    result.caption = "seconds of a clip: median over the rounds;\npeak memory: above model and clips"
    result.add_column("")
    for name in names:
        result.add_column(name, justify="right")
    for axis, points in growth.items():
        rows: dict[str, dict[str, str]] = {}
        for point in points:
            told = f"{number(point['seconds'])} s"
            if point["peak_bytes"] is not None:
                told += f", {mebibytes(point['peak_bytes'])}"
            rows.setdefault(f"{AXES[axis]} {step(axis, point)}", {})[point["variant"]] = told
        for size, row in rows.items():
            result.add_row(size, *(row.get(name, "not measured") for name in names))
        result.add_section()
    return result


def step(axis: str, point: Mapping[str, Any]) -> str:
    """What was changed at a point of growth, for people: of pixels, the sides of the frame."""
    if axis != "pixels":
        return str(point[axis])
    return point.get("size") or str(isqrt(point["pixels"]))  # the first records have squares alone and no size


def label(name: str, job: Mapping[str, Any]) -> str:
    """A variant's name, with the shape of its clips if it is a peer that takes others than the job's."""
    variant = find_variant(name)
    if variant.family != "peer":
        return name
    frames, side, _ = PEERS[variant.model]
    own = clip({"frames": frames, "height": side, "width": side})
    return name if own == clip(job) else f"{name}, {own}"


def clip(job: Mapping[str, Any]) -> str:
    """The shape of a job's clips."""
    return f"{job['frames']} x {job['height']} x {job['width']}"


def title(record: Mapping[str, Any], *, around: str = "") -> str:
    """What was measured, where and when; in an environment that has variables of weight, which."""
    job = next(iter(record["variants"].values()))["job"]
    clips = f"one clip of {clip(job)}" if job["batch"] == 1 else f"{job['batch']} clips of {clip(job)} at once"
    task = "training step" if job["train"] else "inference"
    where = f"{device(record['machine'])}, {record['date'][:10]}"
    if names := variables(record):
        where += f", with {', '.join(names)}"
    return f"{job['model']}, {task}, {around}{clips}\n{fill(where, 95, break_long_words=False)}"


def variables(record: Mapping[str, Any]) -> dict[str, str]:
    """The variables of the environment that matter; the first records tell none."""
    found: dict[str, str] = record.get("environment", {})
    return found


def device(machine: Mapping[str, Any]) -> str:
    """What a record was measured on."""
    return machine["gpu"]["name"] if machine["gpu"] else f"{machine['cpu']}, {machine['threads']} threads"


def spread(summary: dict[str, float] | None, *, to: str = "-") -> str:
    """Median, minimum and maximum, with `to` between the last two."""
    if summary is None:
        return ""
    return f"{number(summary['median'])} ({number(summary['min'])}{to}{number(summary['max'])})"


def number(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def mebibytes(size: int | None) -> str:
    """A size for people."""
    return "" if size is None else f"{size / 2**20:,.0f} MiB"
