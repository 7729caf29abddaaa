"""`iwin tool check_videos`: decode every frame of every listed video, and name those that cannot be."""

import argparse
import os

from iwin.cli.common import add_config_options, console, idle_options, output_file

IDLE = {"decoder": "PyAV decodes"}


def add_parser(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the tool."""
    parser = tools.add_parser(
        "check_videos", help="find videos that cannot be decoded", description="Decode every video of a split."
    )
    parser.add_argument("config", metavar="CONFIG", help="the config that names the videos")
    parser.add_argument("--split", choices=["train", "val", "test"], default="train", help="(default train)")
    parser.add_argument("--num-processes", type=int, metavar="N", help="decoder processes (default: one a core)")
    parser.add_argument("--output-file", metavar="FILE", help="write the paths of the bad videos, one a line")
    parser.add_argument("--decoder", help=f"no effect: {IDLE['decoder']}")
    add_config_options(parser, "--options")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Name the bad videos on standard output; exit status 1 if there are any."""
    from iwin.build import build_annotations
    from iwin.config import load_run_config
    from iwin.engine.log import RunLog, progress
    from iwin.errors import ConfigError
    from iwin.files import write_atomically
    from iwin.prepare.pool import default_processes
    from iwin.prepare.scan import scan

    out = output_file(args.output_file, []) if args.output_file else None
    processes = default_processes() if args.num_processes is None else args.num_processes
    if processes < 1:
        raise ConfigError("--num-processes takes a number from 1 up")
    config, _ = load_run_config(args.config, args.cfg_options)
    split = {"train": config.data.train, "val": config.data.val, "test": config.data.test}[args.split]
    if split is None:
        raise ConfigError(f"the config has no data.{args.split}")
    log = RunLog(None, console())
    for note in idle_options(args, IDLE):
        log.say(f"note: {note}")
    samples = list({sample.path: sample for sample in build_annotations(split, name=args.split).samples}.values())
    bad = []
    checked = scan(samples, depth="all", processes=processes)
    for facts in progress(checked, console=log.console, title="checking", total=len(samples)):
        if facts.problem is not None:
            bad.append(facts.path)
            print(facts.reason, flush=True)
    if out is not None:
        text = "".join(f"{path}\n" for path in bad)
        write_atomically(out, lambda temporary: temporary.write_bytes(os.fsencode(text)))
    log.say(f"{len(samples)} videos checked, {len(bad)} cannot be decoded")
    return 1 if bad else 0
