"""`iwin tool eval_metric` at upstream's path."""

import sys

from iwin.cli import main

if __name__ == "__main__":  # decoder processes import this file
    sys.exit(main(["tool", "eval_metric", *sys.argv[1:]]))
