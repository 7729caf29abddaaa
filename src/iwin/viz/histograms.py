"""Histograms of a data set as a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iwin.errors import IwinError
from iwin.files import write_atomically

_COLUMNS = 2
_BINS = 40


@dataclass(frozen=True)
class Panel:
    """One histogram.

    Attributes:
        measured: what the values are, with their unit.
        counted: what has these values, in the plural.
        values: the values of each split.
    """

    measured: str
    counted: str
    values: Mapping[str, Sequence[float]]


def draw_histograms(panels: Sequence[Panel], path: Path, *, title: str) -> None:
    """Write a picture of histograms, with a colour for each split.

    Args:
        panels: what is drawn.
        path: the picture; the suffix chooses its format.
        title: title of the whole picture.

    Raises:
        IwinError: if Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise IwinError("drawing needs Matplotlib: pip install matplotlib, or iwin[viz]") from None

    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(10, 0.9 + 2.6 * rows), dpi=120, layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    splits = list(dict.fromkeys(split for panel in panels for split in panel.values))
    colours = {split: f"C{number % 10}" for number, split in enumerate(splits)}
    for axis, panel in zip(axes, panels, strict=False):
        low, high = _limits(panel)
        for split, values in panel.values.items():
            axis.hist(values, bins=_BINS, range=(low, high), color=colours[split], alpha=0.6)
        axis.set_xlabel(panel.measured)
        axis.set_ylabel(panel.counted)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles = [Patch(color=colours[split], alpha=0.6, label=split) for split in splits]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False)
    figure.suptitle(title)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:]))


def _limits(panel: Panel) -> tuple[float, float]:
    """A range that holds all values; one around them where all are equal."""
    values = [value for values in panel.values.values() for value in values]
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.0 if high > low else max(0.5, abs(low) * 0.05)
    return low - margin, high + margin
