"""`iwin bench`: measurements; one file a verb."""

import argparse

from iwin.cli.bench import data, model

VERBS = (model, data)


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser("bench", help="measure speed and memory", description="Measure speed and memory.")
    subjects = parser.add_subparsers(title="what to measure", metavar="SUBJECT", required=True)
    for verb in VERBS:
        verb.add_parser(subjects)
