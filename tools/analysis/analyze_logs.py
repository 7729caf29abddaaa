"""`iwin tool analyze_logs` at upstream's path."""

import sys

from iwin.cli import main

if __name__ == "__main__":  # decoder processes import this file
    sys.exit(main(["tool", "analyze_logs", *sys.argv[1:]]))
