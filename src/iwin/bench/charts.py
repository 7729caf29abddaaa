"""A measurement as pictures."""

from collections.abc import Callable, Mapping
from functools import partial
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from iwin.bench.report import AROUND, AXES, label, step, title
from iwin.bench.variants import Variant, find_variant
from iwin.errors import IwinError
from iwin.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAMILIES = {
    "reference": ("the plain model", "Greys"),
    "iwin": ("Iwin", "Blues"),
    "peer": ("other authors' model", "Oranges"),
}
"""Who made a variant has a colour, in bars as in lines."""

SHADES = {"fp32": 0.45, "bf16": 0.65, "bf16-cast": 0.85, "fp16": 1.0}
"""And each precision a shade of it."""

MARKERS = {
    "eager": "o",
    "sdpa": "s",
    "compiled": "^",
    "cudagraphs": "v",
    "checkpointed": "D",
    "kept-memory": "h",
    "exported": "P",
    "onnxruntime": "X",
    "openvino": "*",
}
"""Lines of one colour differ by how the model is run."""

TICK = "{x:,.10g}"
"""A number at an axis: 70,000 and 0.5."""


def draw_charts(record: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Write `NAME_speed.png`, `NAME_memory.png` and, of what was measured, `NAME_rate.png` and `NAME_growth.png`.

    Returns:
        Their paths.

    Raises:
        IwinError: if matplotlib is not installed, or a file cannot be written.
    """
    pictures: dict[str, Callable[[Mapping[str, Any]], Figure]] = {}
    if models(record):
        pictures |= {"speed": speed, "memory": memory}
    if any("gmacs_per_second" in told for told in models(record).values()):
        pictures["rate"] = rate
    if any(record["growth"].values()):
        pictures["growth"] = growth
    paths = []
    for kind, draw in pictures.items():
        path = folder / f"{name}_{kind}.png"
        write_atomically(path, partial(save, draw(record)))
        paths.append(path)
    return paths


def save(figure: "Figure", path: Path) -> None:
    """Write a figure; the same one gives the same bytes with the same matplotlib."""
    figure.savefig(path, format="png", dpi=150)


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1) -> "tuple[Figure, Any]":
    """A figure with its axes (rows, columns), which share their vertical scale in a row."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise IwinError("charts need matplotlib: pip install 'iwin[viz]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row")


def speed(record: Mapping[str, Any]) -> "Figure":
    """Clips a second; a whisker from the slowest to the fastest round."""
    values = {name: told.get("clips_per_second", "not measured") for name, told in models(record).items()}
    return bars(record, values, "clips a second: median, slowest and fastest round")


def memory(record: Mapping[str, Any]) -> "Figure":
    """Peak memory."""
    values: dict[str, dict[str, float] | str] = {}
    for name, told in models(record).items():
        if "clips_per_second" not in told:
            values[name] = "not measured"
        elif told["peak_bytes"] is None:
            values[name] = "not told: it takes its memory once and keeps it"
        else:
            values[name] = dict.fromkeys(("median", "min", "max"), told["peak_bytes"] / 2**20)
    return bars(record, values, "peak memory above model and clips, MiB")


def rate(record: Mapping[str, Any]) -> "Figure":
    """Multiply-adds a second, by which models compare at inputs of their own, with shares of a matrix product's."""
    values: dict[str, dict[str, float] | str] = {}
    shares: dict[str, str] = {}
    for name, told in models(record).items():
        if "gmacs_per_second" not in told:
            values[name] = "not measured"
            continue
        clips, gmacs = told["clips_per_second"], told["gmacs_per_second"]
        values[name] = {key: gmacs * clips[key] / clips["median"] for key in ("median", "min", "max")}
        if told["share_of_matmul"] is not None:
            shares[name] = f"{100 * told['share_of_matmul']:.0f} %"
    unit = "billions of multiply-adds a second: median, slowest and fastest round"
    if shares:
        unit += "\nin %: of those of a large matrix product in the same run and precision"
    return bars(record, values, unit, ends=shares)


def models(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of all variants but bare matrix products."""
    return {name: told for name, told in record["variants"].items() if find_variant(name).family != "matmul"}


def bars(
    record: Mapping[str, Any],
    values: Mapping[str, Mapping[str, float] | str],
    unit: str,
    *,
    ends: Mapping[str, str] | None = None,
) -> "Figure":
    """A bar a variant, or why there is none; bars of clips of another size than the title's are hatched.

    Args:
        record: the record.
        values: median, minimum and maximum by variant, or why there are none.
        unit: what the values are.
        ends: what is written at a bar's end, by variant.
    """
    from matplotlib.patches import Patch

    ends = ends or {}
    heading = title(record)
    figure, axes = new_figure(8, 1.3 + 0.2 * (heading + unit).count("\n") + 0.32 * len(values))
    axis: Axes = axes[0, 0]
    legend: dict[str, Patch] = {}
    hatched: Patch | None = None
    for name, value in values.items():
        variant = find_variant(name)
        row = label(name, record["variants"][name]["job"])
        hatch = "//" if row != name else None
        if isinstance(value, str):
            axis.barh(row, 0)
            write_beside(axis, value, 0, row, style="italic")
            continue
        middle = value["median"]
        whisker = [[middle - value["min"]], [value["max"] - middle]] if value["max"] > value["min"] else None
        axis.barh(row, middle, xerr=whisker, color=colour(variant), hatch=hatch, edgecolor="white", capsize=3)
        write_beside(axis, ends.get(name, ""), value["max"], row)
        key = f"{FAMILIES[variant.family][0]}, {variant.precision}"
        legend.setdefault(key, Patch(color=colour(variant), label=key))
        if hatch:
            hatched = Patch(facecolor="white", edgecolor="gray", hatch=hatch, label="clips of another size")
    if hatched:
        legend["hatched"] = hatched
    axis.invert_yaxis()
    axis.set_xlim(0, axis.get_xlim()[1] * (1.06 if ends else 1))
    axis.set_xlabel(unit)
    axis.xaxis.set_major_formatter(TICK)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    figure.suptitle(heading, fontsize=10)
    if legend:
        figure.legend(handles=list(legend.values()), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def write_beside(
    axis: "Axes", text: str, place: float, row: str, *, style: Literal["normal", "italic"] = "normal"
) -> None:
    """Write a little to the right of a place in a row."""
    axis.annotate(text, (place, row), (4, 0), textcoords="offset points", va="center", fontsize=8, style=style)


def colour(variant: Variant) -> tuple[float, float, float, float]:
    """Red, green, blue and alpha of a variant."""
    import matplotlib as mpl

    red, green, blue, alpha = mpl.colormaps[FAMILIES[variant.family][1]](SHADES[variant.precision])
    return red, green, blue, alpha


def growth(record: Mapping[str, Any]) -> "Figure":
    """Seconds of a clip and memory over frames, pixels and batch: a column an axis, a line a variant.

    Around the seconds a band from the fastest to the slowest round, which the first records do not tell.
    """
    from matplotlib.ticker import FixedLocator, NullLocator

    found = {axis: points for axis, points in record["growth"].items() if points}
    figure, axes = new_figure(4 * len(found), 6.6, len(found), 2)
    lines: dict[str, Any] = {}
    for row, (key, what, unit) in enumerate(
        (("seconds", "seconds a clip", 1), ("peak_bytes", "peak memory, MiB", 2**20))
    ):
        heights: list[float] = []
        for column, (axis, points) in enumerate(found.items()):
            panel: Axes = axes[row, column]
            for name in dict.fromkeys(point["variant"] for point in points):
                line = [point for point in points if point["variant"] == name and point[key]]
                variant = find_variant(name)
                marker = MARKERS[variant.how]
                values = [point[key] / unit for point in line]
                heights += values
                places = [point[axis] for point in line]
                (lines[name],) = panel.plot(places, values, marker=marker, color=colour(variant), label=name)
                if all(f"{key}_min" in point for point in line):
                    least, most = ([point[f"{key}_{end}"] / unit for point in line] for end in ("min", "max"))
                    heights += least + most
                    panel.fill_between(places, least, most, color=colour(variant), alpha=0.3, linewidth=0)
            panel.set_xscale("log", base=2)
            ticks = {point[axis]: step(axis, point) for point in points}
            panel.set_xticks(list(ticks), list(ticks.values()))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_xlabel(f"{AXES[axis]}, spaced by pixels" if axis == "pixels" else AXES[axis])
            panel.grid(alpha=0.3)
        first: Axes = axes[row, 0]
        first.set_yscale("log")
        shaded = any(f"{key}_min" in point for points in found.values() for point in points)
        first.set_ylabel(f"{what}\nshaded: all rounds" if shaded else what)
        if heights:
            marks = round_numbers(min(heights), max(heights))
            first.yaxis.set_major_locator(FixedLocator(marks))
            first.yaxis.set_major_formatter(TICK)
            first.yaxis.set_minor_locator(NullLocator())
            room = (marks[-1] / marks[0]) ** 0.04  # for half a marker
            first.set_ylim(min(marks[0], min(heights) / room), max(marks[-1], max(heights) * room))
    figure.suptitle(title(record, around=AROUND), fontsize=10)
    figure.legend(handles=list(lines.values()), loc="outside lower center", ncols=min(6, len(lines)), fontsize=9)
    return figure


def round_numbers(least: float, most: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from the last one below `least` to the first one above `most`."""
    decades = range(floor(log10(least)), floor(log10(most)) + 2)
    marks = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)]
    first = max(index for index, mark in enumerate(marks) if mark <= least)
    last = min(index for index, mark in enumerate(marks) if mark >= most)
    return marks[first : max(last, first + 1) + 1]
