"""Arguments and output that several verbs share."""

import argparse
import sys
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from accelerate import Accelerator

Verbs = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """`--cfg-options`, in upstream's grammar."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings that overrule the config, such as model.backbone.use_checkpoint=True optimizer.lr=1e-4",
    )


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """`--precision` and `--cpu`."""
    parser.add_argument("--precision", choices=["bf16", "fp16", "no"], help="overrule the config's mixed precision")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU even where there is a GPU")


def console(accelerator: "Accelerator | None" = None) -> Console:
    """Where lines for people go: standard error, of the main process only."""
    quiet = accelerator is not None and not accelerator.is_main_process
    return Console(file=sys.stderr, quiet=quiet)
