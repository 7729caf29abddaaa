"""Ctrl-C as the commands take it."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

STATUS = 130
"""Exit status of a command that was interrupted."""

MESSAGE = "iwin: interrupted"


@contextlib.contextmanager
def plain_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C, but leave at once in the middle of an import.

    There is nothing to clean up yet then, and libraries would swallow the exception or die of it in their C++ code.
    """
    if threading.current_thread() is not threading.main_thread():  # no other gets signals
        yield
        return
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(_: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            with contextlib.suppress(RuntimeError):  # it was at that
                sys.stdout.flush()
            os.write(2, f"{MESSAGE}\n".encode())
            os._exit(STATUS)
        frame = frame.f_back
    raise KeyboardInterrupt
