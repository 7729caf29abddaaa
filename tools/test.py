"""`iwin test` at upstream's path."""

import sys

from iwin.cli import main

if __name__ == "__main__":  # decoder processes import this file
    sys.exit(main(["test", *sys.argv[1:]]))
