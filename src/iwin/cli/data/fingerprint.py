"""`iwin data fingerprint`: twelve letters that say which data a score was measured on."""

import argparse

from iwin.cli.data.common import add_sources, read_sources


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "fingerprint",
        help="tell whether two copies of a data set are equal",
        description="Print a hash of the list, the sizes of the videos and the decoder. It stands with every score and "
        "in every checkpoint; the folder of the data and the order of the list do not count.",
    )
    add_sources(parser)
    parser.add_argument(
        "--decoder", choices=["pyav", "torchcodec"], default="pyav", help="what the run decodes with (default pyav)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the fingerprint of each split and what it rests on."""
    from iwin.data.fingerprint import read_fingerprint

    for split in read_sources(args):
        found = read_fingerprint(split.annotations, decoder=args.decoder)
        print(f"{split.name}: {found}")
        print(f"  list: {found.listed}, paths and labels of {found.num_videos:,} videos")
        print(f"  sizes: {found.sizes}, of {found.num_sized:,} videos")
        print(f"  decoder: {found.decoder}")
    return 0
