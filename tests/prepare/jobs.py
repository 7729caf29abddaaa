"""What worker processes are given to do in tests; real hangs and real crashes."""

import os
import signal
import time
from pathlib import Path

from iwin.data.workers import report_progress


def behave(item: str) -> str:
    """Do what the item says: hang on a pipe that nobody writes to, crash, stop, raise, or give an answer."""
    if item.startswith("/"):  # a named pipe: opening it waits for a writer that never comes
        return Path(item).read_text()
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if item == "raise":
        raise RuntimeError("no such luck")
    if item == "long":
        for _ in range(8):
            time.sleep(0.25)
            report_progress()
    if item == "pid":
        return str(os.getpid())
    return item.upper()
