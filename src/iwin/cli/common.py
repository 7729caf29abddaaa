"""Arguments and output that several verbs share."""

import argparse
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from iwin.data.annotations import LIST_SUFFIXES
from iwin.data.sources import beside, exists, join, path_in
from iwin.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from accelerate import Accelerator

    from iwin.config import RunConfig

METRICS = ("top_k_accuracy", "mean_class_accuracy", "mean_average_precision")

SCORE_SUFFIXES = (".pkl", ".yaml", ".json")


def add_config_options(parser: argparse.ArgumentParser, *other_names: str) -> None:
    """`--cfg-options`, in upstream's grammar."""
    parser.add_argument(
        "--cfg-options",
        *other_names,
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings that overrule the config, such as model.backbone.use_checkpoint=True optimizer.lr=1e-4",
    )


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """`--precision`, `--compile` and `--cpu`."""
    parser.add_argument("--precision", choices=["bf16", "fp16", "no"], help="overrule the config's mixed precision")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="have torch.compile join the model's operators, in half a minute to some: pays on a GPU, in long runs",
    )
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU even where there is a GPU")


def add_metric_options(parser: argparse.ArgumentParser) -> None:
    """`--eval` and `--eval-options`; `metric_options` reads them."""
    parser.add_argument("--eval", nargs="+", default=[], metavar="METRIC", help=f"figures: {', '.join(METRICS)}")
    parser.add_argument(
        "--eval-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the metrics, such as topk=(1,3,5)",
    )


def metric_options(args: argparse.Namespace) -> list[str]:
    """The config options that `--eval` and `--eval-options` stand for.

    Raises:
        ConfigError: if there is no such metric.
    """
    for name in args.eval:
        if name not in METRICS:
            hint = did_you_mean(name, METRICS) or f"; the metrics are {', '.join(METRICS)}"
            raise ConfigError(f"--eval {name}: there is no such metric{hint}")
    chosen = [f"evaluation.metrics=[{','.join(args.eval)}]"] if args.eval else []
    return [*chosen, *(f"evaluation.{option}" for option in args.eval_options)]


def split_options(split: str, place: str) -> list[str]:
    """The config options that point a split at a list file with paths beside it, or at a folder of class folders.

    A folder with the split's list in it, as `iwin data list` makes one, stands for that list; a test split without one
    of its own is the validation split.

    Args:
        split: "train", "val" or "test".
        place: a path or an address.

    Raises:
        ConfigError: if the place would mean something else in the grammar of options.
        DataError: if an address's server cannot be asked.
    """
    if set(place) & set(",()[]"):
        raise ConfigError(f"--data {place}: a place with commas or brackets can only be named in a config file")
    if path_in(place).suffix not in LIST_SUFFIXES:
        names = ("test", "val") if split == "test" else (split,)
        place = next((found for name in names if exists(found := join(place, f"{name}.txt"))), place)
    if path_in(place).suffix in LIST_SUFFIXES:
        return [f"data.{split}.ann_file={place}", f"data.{split}.data_prefix={beside(place, '')}"]
    return [f"data.{split}.ann_file=None", f"data.{split}.data_prefix={place}"]


def check_test_metrics(config: "RunConfig") -> None:
    """Refuse figures that the test split cannot have, before it is scored.

    Raises:
        ConfigError: naming the figure.
    """
    from iwin.build import check_metrics

    if config.data.test is not None:
        check_metrics(config.evaluation, config.data.test, name="test")


def idle_options(args: argparse.Namespace, reasons: Mapping[str, str]) -> list[str]:
    """What is to be said about options that were given but change nothing.

    Args:
        args: the command line.
        reasons: why an option (as in "gpu_collect") has no effect.
    """
    return [
        f"--{name.replace('_', '-')} has no effect: {reason}"
        for name, reason in reasons.items()
        if getattr(args, name) not in (None, False)
    ]


def output_file(name: str, suffixes: Sequence[str]) -> Path:
    """The path of a file that the command will write; what would keep it from that is told before the work begins.

    Args:
        name: as it was given.
        suffixes: the forms that the file can have; none allows any.

    Raises:
        ConfigError: if the file cannot be written there, or not in that form.
    """
    path = Path(name)
    if suffixes and path.suffix not in suffixes:
        raise ConfigError(f"{name}: the name of this file must end in {one_of(suffixes)}")
    if path.is_dir():
        raise ConfigError(f"{name} is a folder; name a file in it")
    _check_reachable(path.absolute().parent, name)
    return path


def output_folder(name: str) -> Path:
    """The path of a folder that the command will fill; what would keep it from that is told before the work begins.

    Raises:
        ConfigError: if it is a file, or cannot be written to.
    """
    path = Path(name)
    _check_reachable(path.absolute(), name)
    return path


def _check_reachable(folder: Path, name: str) -> None:
    try:
        standing = next(place for place in (folder, *folder.parents) if place.exists())
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise ConfigError(f"{name} cannot be written ({error.strerror})") from None
    own = os.access in os.supports_effective_ids  # not on Windows
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK, effective_ids=own):
        raise ConfigError(f"{name} cannot be written: {standing} is no folder that can be written to")


def one_of(words: Collection[str]) -> str:
    """`a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def console(accelerator: "Accelerator | None" = None) -> Console:
    """Where lines for people go: standard error, of the main process only."""
    quiet = accelerator is not None and not accelerator.is_main_process
    return Console(file=sys.stderr, quiet=quiet)


def print_figures(figures: Mapping[str, float | str]) -> None:
    """Print `name: value` lines on standard output."""
    for name, value in figures.items():
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
