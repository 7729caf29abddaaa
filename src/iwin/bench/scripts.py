"""What the scripts of benchmarks/ share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from iwin.errors import IwinError


def run(main: Callable[[], None]) -> None:
    """Run a script; an error that its user can mend is told in one sentence and ends it with status 1."""
    try:
        main()
    except IwinError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def count(text: str) -> int:
    """An option's value that is a number from 1 up.

    Raises:
        argparse.ArgumentTypeError: if it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)


def width_height(text: str) -> tuple[int, int]:
    """An option's value that is a width and a height in pixels, as in 340x256.

    Raises:
        argparse.ArgumentTypeError: if it is none.
    """
    sides = text.split("x")
    if len(sides) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no WIDTHxHEIGHT; give one like 340x256")
    return count(sides[0]), count(sides[1])
