"""`iwin tool bench_processing`: how fast videos become clips, without a model."""

import argparse
import sys

from iwin.cli.common import add_config_options, console, print_figures


def add_parser(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the tool."""
    parser = tools.add_parser(
        "bench_processing", help="speed of the data pipeline", description="Time decoding and transforms."
    )
    parser.add_argument("config", metavar="CONFIG", help="the config that names the videos and the pipeline")
    parser.add_argument("--split", choices=["train", "val", "test"], default="train", help="(default train)")
    parser.add_argument("--videos", type=int, default=200, metavar="N", help="videos to time at most (default 200)")
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print videos and clips a second, the start of the decoder processes not counted."""
    import time

    from iwin.build import build_accelerator, build_annotations, build_evaluation, training_loader
    from iwin.config import load_run_config
    from iwin.engine.log import progress
    from iwin.errors import ConfigError

    config, _ = load_run_config(args.config, args.cfg_options)
    split = {"train": config.data.train, "val": config.data.val, "test": config.data.test}[args.split]
    if split is None or args.videos < 1:
        raise ConfigError(f"the config has no data.{args.split}" if split is None else "--videos takes a number from 1")
    annotations = build_annotations(split, name=args.split)
    accelerator = build_accelerator(config, cpu=True)
    if args.split == "train":
        loader, _ = training_loader(config, annotations, accelerator, num_classes=annotations.num_classes)
    else:
        classes = annotations.num_classes
        loader = build_evaluation(config, split, annotations, accelerator, name=args.split, num_classes=classes).loader
    videos = clips = 0
    begun = 0.0
    batches = progress(loader, console=console(), title="loading", total=len(loader))
    for number, batch in enumerate(batches):
        if number == 0:  # waited for the processes to start
            begun = time.perf_counter()
            continue
        videos, clips = videos + len(batch), clips + len(batch) * batch.views.shape[1]
        if videos >= args.videos:
            break
    seconds = time.perf_counter() - begun
    if not videos:
        raise ConfigError("there is one batch only, and the first is not timed; set data.videos_per_gpu lower")
    processes, size = split.num_workers, loader.batches.batch_size
    print(f"{processes} decoder processes, batches of {size} videos; {len(loader.bad)} bad", file=sys.stderr)
    print_figures({"videos/s": videos / seconds, "views/s": clips / seconds, "videos": videos})
    return 0
