"""Curves of training runs as a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from iwin.errors import IwinError
from iwin.files import write_atomically


@dataclass(frozen=True)
class Curve:
    """One value of one run over its epochs.

    Attributes:
        run: name of the run.
        mode: "train" for values of training batches, "val" for those of validations.
        epochs: where each value stands, in epochs done.
        values: the values.
    """

    run: str
    mode: Literal["train", "val"]
    epochs: Sequence[float]
    values: Sequence[float]


def draw_curves(
    panels: Mapping[str, Sequence[Curve]], path: Path, *, runs: Sequence[str], title: str | None = None
) -> None:
    """Write a picture with a panel for each value: a colour for each run, lines for training, dots for validation.

    Args:
        panels: name and curves of each panel.
        path: the picture; the suffix chooses its format.
        runs: names of the runs, in the order of their colours.
        title: title of the whole picture.

    Raises:
        IwinError: if Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError:
        raise IwinError("drawing needs Matplotlib: pip install matplotlib, or iwin[viz]") from None

    figure = Figure(figsize=(8, 0.6 + 2.9 * len(panels)), dpi=120, layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
    colours = {run: f"C{index % 10}" for index, run in enumerate(runs)}
    for axis, (name, curves) in zip(axes, panels.items(), strict=True):
        for curve in curves:
            axis.plot(curve.epochs, curve.values, color=colours[curve.run], **_STYLES[curve.mode])
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("epoch")
    figure.align_ylabels()
    modes = {curve.mode for curves in panels.values() for curve in curves}
    handles = [Line2D([], [], color=colours[run], linewidth=3, label=run) for run in runs]
    handles += [Line2D([], [], color="grey", label=_NAMES[mode], **_STYLES[mode]) for mode in sorted(modes)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
    if title:
        figure.suptitle(title)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:]))


_NAMES = {"train": "training", "val": "validation"}
_STYLES: dict[str, dict[str, Any]] = {
    "train": {"linewidth": 1.2, "alpha": 0.8},
    "val": {"linewidth": 1.2, "linestyle": "--", "marker": "o", "markersize": 4},
}
