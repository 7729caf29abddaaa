"""The `iwin` command. A verb is a file: `add_parser` declares its arguments, `run` does the work.

PyTorch is imported inside `run` only, so that `iwin --help` answers at once. The verbs are imported inside `main`, so
that Ctrl-C ends in one line from the start.
"""

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import iwin
from iwin.cli.interrupt import MESSAGE, STATUS, plain_interrupts
from iwin.cli.launch import is_first, let_the_first_speak
from iwin.errors import BadVideosError, IwinError
from iwin.process import spare_cores


class Parser(argparse.ArgumentParser):
    """A parser whose errors are told once by a command of several processes."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong, and leave with status 2."""
        let_the_first_speak()
        super().error(message)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    from iwin.cli import bench, config, convert, data, flops, predict, test, tools, train

    parser = Parser(prog="iwin", description="Video action recognition with the Iwin Transformer.")
    parser.add_argument("--version", action="version", version=f"iwin {iwin.__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in (train, test, predict, data, convert, flops, bench, config, tools):
        verb.add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 for an error that the user can mend, 130 when interrupted."""
    spare_cores()
    if isinstance(sys.stdout, io.TextIOWrapper):  # as of standard error: names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with plain_interrupts():
            args = build_parser().parse_args(argv)
            status: int = args.run(args)
            sys.stdout.flush()
            return status
    except BadVideosError as error:
        if is_first():
            print(f"iwin: {error}", file=sys.stderr)
        return 1
    except IwinError as error:
        let_the_first_speak()
        print(f"iwin: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read what is printed, as `head` does, has enough
        discard_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"iwin: nothing more can be written ({error.strerror}); make room and run it again", file=sys.stderr)
        discard_output()
        return 1
    except KeyboardInterrupt:
        print(MESSAGE, file=sys.stderr)
        return STATUS


def discard_output() -> None:
    """Have what is left of standard output go nowhere: Python writes it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
