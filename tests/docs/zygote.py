"""Run Python commands in processes of their own that need not import PyTorch anew: they are forked from one that has.

Reads jobs from standard input and answers each on standard output, a line of JSON each.
"""

import importlib
import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

WARM = ("torchvision", "iwin.build", "iwin.cli", "iwin.config", "iwin.predict")
"""What most commands import."""


def run(job: dict[str, Any]) -> int:
    """Do a job in this process; returns its exit status.

    Args:
        job: `folder` to work in, `output` file for all that is printed, and `argv`: `-m module …`, `-c code` or
            `script …`, as behind `python`.
    """
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(job["folder"])
    first, *rest = job["argv"]
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            exec(compile(rest[0], "block", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Serve until standard input is closed."""
    for name in WARM:
        importlib.import_module(name)
    sys.path.insert(0, str(Path.cwd()))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = run(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        _, result = os.waitpid(child, 0)
        sys.stdout.write(json.dumps(os.waitstatus_to_exitcode(result)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
