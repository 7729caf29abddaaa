"""Work on many items in processes of their own, any of which may hang or crash without harm to the others.

    for index, result in run_all(measure, paths, processes=8, time_limit=60):
        if isinstance(result, Failure):
            print(paths[index], result.reason)

A decoder that meets a damaged file can wait for ever or take its process with it. Here the process is ended, the item
gets a `Failure`, and a fresh process takes over.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from typing import Any, Literal, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_PATIENCE = 5.0
"""Seconds that a killed process may take to go; one that waits for a dead disk takes longer and is left behind."""


@dataclass(frozen=True)
class Failure:
    """Why an item has no result.

    Attributes:
        kind: "hang" if the process was killed after the time limit, "crash" if it died by itself, "error" if the
            function raised.
        reason: what happened, as the end of a sentence.
    """

    kind: Literal["hang", "crash", "error"]
    reason: str


def default_processes() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    function: Callable[[Item], Result], items: Sequence[Item], *, processes: int, time_limit: float
) -> Iterator[tuple[int, Result | Failure]]:
    """Apply a function to every item, some at the same time.

    Leaving the iteration early, by an exception or Ctrl-C, ends the processes at once.

    Args:
        function: what to do; a module's function or a `functools.partial` of one, since processes import it.
        items: what to do it on.
        processes: how many work at the same time.
        time_limit: seconds that may pass without a result or a `report_progress` before a process is killed.

    Yields:
        The place of an item and its result, in the order in which they are done.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["iwin.prepare.pool", "iwin.data.decode"])
    waiting = iter(enumerate(items))
    workers: list[_Worker] = []
    try:
        for index, item in _up_to(min(processes, len(items)), waiting):
            workers.append(_Worker(context, function, index, item))
        while workers:
            connection.wait([worker.pipe for worker in workers], timeout=_GLANCE)
            for worker in list(workers):
                outcome = worker.outcome(time_limit)
                if outcome is None:
                    continue
                index, following = worker.index, next(waiting, None)
                if worker.ended or following is None:
                    worker.end()
                    workers.remove(worker)
                    if following is not None:
                        workers.append(_Worker(context, function, *following))
                else:
                    worker.begin(*following)
                yield index, outcome[0]
    finally:
        for worker in workers:
            worker.end()


def report_progress() -> None:
    """Called by a function that `run_all` runs, between the steps of a long item: its time limit begins anew."""
    if _pipe is not None:
        _tell(_PROGRESS, None)


# ------------------------------------------------------------------------------------ in the parent process

_READY, _PROGRESS, _RESULT = "ready", "progress", "result"

_GLANCE = 0.1
"""Seconds between two looks at the clock."""


def _up_to(count: int, items: Iterator[tuple[int, Item]]) -> Iterator[tuple[int, Item]]:
    for _ in range(count):
        yield next(items)


class _Worker:
    """A process, and the item that it is at."""

    def __init__(self, context: ForkServerContext, function: Callable[[Any], Any], index: int, item: object) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.ended = False
        self.begin(index, item)

    def begin(self, index: int, item: object) -> None:
        """Give it an item."""
        self.index = index
        self.since = time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it died between two items, as `outcome` will find
            self.pipe.send(item)

    def outcome(self, time_limit: float) -> tuple[Any] | None:
        """The item's result or failure, in a tuple; None while the work goes on."""
        try:
            while self.pipe.poll():
                message, result = self.pipe.recv()
                self.ready, self.since = True, time.monotonic()
                if message == _RESULT:
                    return (result,)
        except (EOFError, ConnectionError):
            self.process.join(_PATIENCE)
            self.end()
            return (Failure("crash", f"the process that worked on it died ({_ending(self.process.exitcode)})"),)
        if not self.ready or time.monotonic() - self.since < time_limit:
            return None
        self.end()
        return (Failure("hang", f"nothing came for {time_limit:g} seconds, so the process at it was killed"),)

    def end(self) -> None:
        """Kill it; that ends a stopped process too. May be called twice."""
        if not self.ended:
            self.ended = True
            self.process.kill()
            self.process.join(_PATIENCE)
            self.pipe.close()


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    return signal.Signals(-code).name


# ------------------------------------------------------------------------------------ in the other processes

_pipe: Any = None
"""The way to the parent; None in a process that is no worker."""


def _work(pipe: Any, function: Callable[[Any], Any]) -> None:
    global _pipe
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent ends its workers itself
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _pipe = pipe
    _tell(_READY, None)
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        try:
            result = function(item)
        except Exception as error:  # whatever a file does to a library is a matter of that file
            result = Failure("error", f"{type(error).__name__}: {error}")
        _tell(_RESULT, result)


def _tell(message: str, result: object) -> None:
    try:
        _pipe.send((message, result))
    except OSError:  # so is the parent
        os._exit(1)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
