"""`iwin config`: look at a config as a run would see it."""

import argparse
import sys

from iwin.cli.common import add_config_options


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser("config", help="print a resolved config", description="Look at a config.")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print the config with its bases and options resolved, checked")
    show.add_argument("config", metavar="CONFIG", help="a config file, or the name of one that comes with iwin")
    add_config_options(show, "--options")
    show.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the config; it can be read again as a config file."""
    from iwin.config import dump_config, load_config, parse

    loaded = load_config(args.config, args.cfg_options)
    _, notes = parse(loaded)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(dump_config(loaded.data), end="")
    return 0
