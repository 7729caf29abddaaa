"""`iwin flops`: parameters and multiply-adds of a model."""

import argparse
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from iwin.cli.common import add_config_options

if TYPE_CHECKING:
    from iwin.models.recognizer import IwinImageClassifier, IwinRecognizer


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "flops", help="print a model's parameters and multiply-adds", description="Count parameters and multiply-adds."
    )
    parser.add_argument("model", metavar="NAME", help="a model such as iwin_tiny (see iwin.list_models()), or a config")
    parser.add_argument("--frames", type=int, default=32, help="frames of a clip (default 32)")
    parser.add_argument("--size", type=int, nargs="+", default=[224], metavar="N", help="side, or height and width")
    parser.add_argument(
        "--shape", type=int, nargs="+", metavar="N", help="upstream's form of both, such as 1 3 32 224 224, or a side"
    )
    parser.add_argument("--num-classes", type=int, help="classes (default 400 for video, 1000 for image models)")
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from iwin.models.flops import model_cost
    from iwin.models.recognizer import IwinImageClassifier

    frames, height, width = clip_shape(args)
    model = build(args)
    frames = 1 if isinstance(model, IwinImageClassifier) else frames
    cost = model_cost(model, frames=frames, height=height, width=width)
    table = Table(title=f"{args.model}, one clip of {frames}x{height}x{width}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("counts", overflow="fold")
    table.add_row("parameters", f"{cost.params / 1e6:.1f} M", f"{cost.params:,}, classifier included")
    table.add_row("as published", f"{cost.published / 1e9:.1f} G", "mmcv's counter: no attention products")
    table.add_row("with attention", f"{cost.macs / 1e9:.1f} G", "all multiply-adds")
    Console().print(table)
    return 0


def clip_shape(args: argparse.Namespace) -> tuple[int, int, int]:
    """Frames, height and width of the clip.

    Raises:
        ModelError: if they are no sizes.
    """
    from iwin.errors import ModelError

    frames, size = args.frames, args.size
    if args.shape:
        if len(args.shape) not in (1, 2, 5) or (len(args.shape) == 5 and args.shape[:2] != [1, 3]):
            raise ModelError("--shape takes a side, a height and a width, or 1 3 and frames, height and width")
        frames = args.shape[2] if len(args.shape) == 5 else frames
        size = args.shape[-2:]
    if len(size) > 2 or min(*size, frames) < 1:
        raise ModelError("--size takes one side or a height and a width, --frames a count; all from 1 up")
    return frames, size[0], size[-1]


def build(args: argparse.Namespace) -> "IwinRecognizer | IwinImageClassifier":
    """The model that the name or the config says."""
    from iwin.build import build_model
    from iwin.config import find_config, load_run_config
    from iwin.errors import ConfigError, ModelError, did_you_mean
    from iwin.models.zoo import build_named, list_models

    if args.model in list_models():
        if args.cfg_options:
            raise ConfigError(f"--cfg-options changes a config, and {args.model} is a model; name a config instead")
        return build_named(args.model, num_classes=args.num_classes)
    try:
        find_config(args.model)
    except ConfigError:
        if hint := did_you_mean(args.model, list_models()):
            raise ModelError(f"there is no model {args.model!r}{hint}; see iwin.list_models()") from None
        raise
    config, _ = load_run_config(args.model, args.cfg_options)
    return build_model(config.model, num_classes=args.num_classes or config.model.num_classes or 400)
