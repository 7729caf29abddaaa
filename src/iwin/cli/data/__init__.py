"""`iwin data`: prepare a data set once; one file a verb."""

import argparse
from types import ModuleType

VERBS: tuple[ModuleType, ...] = ()


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser("data", help="prepare data: lists, checks, sizes, …", description="Prepare data.")
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)
    for verb in VERBS:
        verb.add_parser(steps)
