"""A measurement as pictures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwin.errors import IwinError
from iwin.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"iwin": "tab:blue", "reference": "tab:gray", "peer": "tab:orange"}

AXES = {"frames": "frames", "pixels": "side of a frame, by its pixels", "batch": "clips at once"}


def draw_charts(record: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Write `NAME_speed.png`, `NAME_memory.png` and, if it was measured, `NAME_growth.png`; returns their paths.

    Raises:
        IwinError: if matplotlib is not installed, or a file cannot be written.
    """
    told = {key: value for key, value in record["variants"].items() if "clips_per_second" in value}
    models = {key: value for key, value in told.items() if not key.startswith("matmul")}
    speeds = {key: value["clips_per_second"] for key, value in models.items()}
    memory = {key: value["peak_bytes"] / 2**20 for key, value in models.items() if value["peak_bytes"] is not None}
    pictures: dict[str, Callable[[], Figure]] = {
        "speed": lambda: bars({key: value["median"] for key, value in speeds.items()}, "clips a second", speeds),
        "memory": lambda: bars(memory, "peak memory above model and clips, MiB"),
    }
    if record["growth"]:
        pictures["growth"] = lambda: growth(record["growth"])
    paths = []
    for kind, draw in pictures.items():
        path = folder / f"{name}_{kind}.png"
        write_atomically(path, partial(save, draw()))
        paths.append(path)
    return paths


def save(figure: "Figure", path: Path) -> None:
    """Write a figure."""
    figure.savefig(path, format="png", dpi=150)


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1) -> "tuple[Figure, Any]":
    """A figure with its axes (rows, columns)."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise IwinError("charts need matplotlib: pip install 'iwin[viz]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def bars(values: Mapping[str, float], label: str, spreads: Mapping[str, Mapping[str, float]] | None = None) -> "Figure":
    """A bar a variant; a whisker from the slowest to the fastest round."""
    from iwin.bench.variants import find_variant

    figure, axes = new_figure(8, 1 + 0.32 * len(values))
    axis: Axes = axes[0, 0]
    names = list(values)[::-1]
    errors = None
    if spreads is not None:
        errors = [
            [values[name] - spreads[name]["min"] for name in names],
            [spreads[name]["max"] - values[name] for name in names],
        ]
    colours = [COLOURS[find_variant(name).family] for name in names]
    axis.barh(names, [values[name] for name in names], xerr=errors, color=colours, capsize=3)
    axis.set_xlabel(label)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    return figure


def growth(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> "Figure":
    """Seconds of a clip and memory over frames, pixels and batch: a column an axis, a line a variant."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, axes = new_figure(4 * len(found), 6, len(found), 2)
    for column, (axis, points) in enumerate(found.items()):
        for row, (key, label) in enumerate((("seconds", "seconds a clip"), ("peak_bytes", "peak memory, MiB"))):
            panel: Axes = axes[row, column]
            for name in dict.fromkeys(point["variant"] for point in points):
                line = [point for point in points if point["variant"] == name and point[key] is not None]
                unit = 2**20 if key == "peak_bytes" else 1
                panel.plot([p[axis] for p in line], [p[key] / unit for p in line], marker="o", label=name)
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            values = sorted({point[axis] for point in points})
            panel.set_xticks(values, [f"{isqrt(value) if axis == 'pixels' else value}" for value in values])
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.set_xlabel(AXES[axis])
            panel.set_ylabel(label)
            panel.grid(alpha=0.3, which="both")
    axes[0, 0].legend()
    return figure
