"""`iwin flops`: parameters and multiply-adds of a model."""

import argparse

from rich.console import Console
from rich.table import Table


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "flops", help="print a model's parameters and multiply-adds", description="Count parameters and multiply-adds."
    )
    parser.add_argument("model", metavar="NAME", help="a model such as iwin_tiny (see iwin.list_models())")
    parser.add_argument("--frames", type=int, default=32, help="frames of a clip (default 32)")
    parser.add_argument("--size", type=int, nargs="+", default=[224], metavar="N", help="side, or height and width")
    parser.add_argument("--num-classes", type=int, help="classes (default 400 for video, 1000 for image models)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from iwin.errors import ModelError
    from iwin.models.flops import model_cost
    from iwin.models.recognizer import IwinImageClassifier
    from iwin.models.zoo import build_named

    if len(args.size) > 2 or min(args.size) < 1 or args.frames < 1:
        raise ModelError("--size takes one side or a height and a width, --frames a count; all from 1 up")
    model = build_named(args.model, num_classes=args.num_classes)
    height, width = args.size[0], args.size[-1]
    frames = 1 if isinstance(model, IwinImageClassifier) else args.frames
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
