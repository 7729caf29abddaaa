"""`python -m iwin` is the `iwin` command."""

import sys

from iwin.cli import main

if __name__ == "__main__":
    sys.exit(main())
