"""`iwin tool check_videos` at upstream's path."""

import sys

from iwin.cli import main

if __name__ == "__main__":  # decoder processes import this file
    sys.exit(main(["tool", "check_videos", *sys.argv[1:]]))
