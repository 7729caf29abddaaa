"""`iwin tool bench_processing` at upstream's path."""

import sys

from iwin.cli import main

if __name__ == "__main__":  # decoder processes import this file
    sys.exit(main(["tool", "bench_processing", *sys.argv[1:]]))
