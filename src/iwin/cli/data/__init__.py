"""`iwin data`: prepare a data set once; one file a verb."""

import argparse

from iwin.cli.data import check, download, fingerprint, frames, info, resize, shard, show
from iwin.cli.data import list as list_

VERBS = (
    list_,
    download,
    check,
    resize,
    frames,
    shard,
    info,
    fingerprint,
    show,
)


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser("data", help="prepare data: lists, checks, sizes, …", description="Prepare data.")
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)
    for verb in VERBS:
        verb.add_parser(steps)
