"""`iwin predict`: what is going on in a video."""

import argparse
import sys
from typing import TYPE_CHECKING

from rich.table import Table

from iwin.cli.common import add_config_options
from iwin.errors import ConfigError

if TYPE_CHECKING:
    from iwin.predict import Prediction


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser("predict", help="classify video files", description="Classify video files.")
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="video files or addresses")
    parser.add_argument(
        "--checkpoint", required=True, metavar="SOURCE", help="weights of a trained recogniser: a file, URL or Hub id"
    )
    parser.add_argument("--config", metavar="CONFIG", help="config of a checkpoint that carries none")
    parser.add_argument("--topk", type=int, default=5, metavar="K", help="classes shown for each video (default 5)")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each video instead of a table")
    parser.add_argument("--device", help="where to run, such as cpu or cuda:0 (default: a GPU where there is one)")
    parser.add_argument(
        "--precision",
        choices=["no", "bf16", "fp16"],
        default="no",
        help="run the whole model in half precision (default no)",
    )
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Classify every video; those that cannot be read are named, and make the exit status 1."""
    if args.cfg_options and args.config is None:
        raise ConfigError("--cfg-options changes the config that --config names: give that too")
    if args.topk < 1:
        raise ConfigError("--topk takes a number of classes from 1 up")

    from iwin.data.workers import start_fork_server

    start_fork_server()  # it imports what it needs while this process does

    import json
    from dataclasses import asdict

    import torch
    from rich.console import Console

    from iwin.build import load_trained, slow_precision
    from iwin.config import load_run_config
    from iwin.data.bad_videos import BadVideo
    from iwin.predict import Predictor

    config = load_run_config(args.config, args.cfg_options)[0] if args.config else None
    dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[args.precision]
    predictor = Predictor(load_trained(args.checkpoint, config=config), device=args.device, dtype=dtype)
    for note in slow_precision(predictor.device, args.precision):
        print(f"note: {note}", file=sys.stderr)
    console = Console()
    status = 0
    for prediction in predictor.predict_each(args.videos, topk=args.topk):
        if isinstance(prediction, BadVideo):
            print(f"iwin: {prediction.reason}", file=sys.stderr)
            status = 1
            continue
        if args.json:
            print(json.dumps(asdict(prediction), ensure_ascii=False), flush=True)
        else:
            print(f"{prediction.path}  (mean of {prediction.views} views)")
            console.print(table(prediction))
    return status


def table(prediction: "Prediction") -> Table:
    """The likeliest classes for people."""
    result = Table()
    result.add_column("score", justify="right")
    result.add_column("class")
    for score, name in zip(prediction.scores, prediction.classes, strict=True):
        result.add_row(f"{score:.3f}", name)
    return result
