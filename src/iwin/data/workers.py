"""Processes that do one kind of work, any of which may hang or crash without harm to the others.

    with Workers(read, count=4, time_limit=60) as workers:
        workers.submit(0, "a.mp4")
        for number, result in workers.receive():
            ...

A decoder that meets a damaged file can wait for ever or take its process with it. PyTorch's own loader ends the run
when that happens. Here a process that died, or of which nothing came within the time limit, is replaced. The task may
be tried once more, since the process may have been stopped or ended for reasons of the machine; after that its result
is `Lost`.

Results come by way of `iwin.data.passing`: no worker waits to be read from, and its death takes nothing away that it
has sent.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

import torch

from iwin.data.passing import Alive, Ended, Inbox, Outbox

Task = TypeVar("Task")
Result = TypeVar("Result")

AT_HAND = 3
"""Tasks that a process has at most; the others wait here, since a full pipe would block."""

LIFETIME = 2000
"""Tasks after which a process gives way to a new one. Among buffers of many sizes the heap falls to pieces and grows,
about 1 KiB a clip (`benchmarks/decode_memory.py`), and what FFmpeg may lose on odd files ends here too."""

GLANCE = 0.2
"""Seconds after which `Workers.receive` returns, with or without results."""

_PATIENCE = 5.0
"""Seconds that a killed process may take to go; one that waits for a dead disk takes longer and is left behind."""


@dataclass(frozen=True)
class Lost:
    """What stands for the result of a task that has none.

    Attributes:
        kind: "hang" if its process was killed after the time limit, "crash" if that died by itself; "error" where
            errors are caught in the process.
        reason: what happened, as the end of a sentence.
    """

    kind: Literal["hang", "crash", "error"]
    reason: str


@dataclass(frozen=True)
class _Broken:
    """The function raised an error that it should not have."""

    story: str


@dataclass
class _Assignment(Generic[Task]):
    number: int
    task: Task
    losses: int = 0


class Workers(Generic[Task, Result]):
    """Processes that apply one function to tasks; to be closed by a ``with`` statement or `close`.

    They come from a fork server that has imported this package and started no thread: forking the training process
    itself can deadlock in the threads of CUDA and FFmpeg, and spawning pays seconds of imports for every process.

    Args:
        work: the function; it and the tasks are pickled, which should take up no more than some kilobytes: a process
            has to read them. Tensors in its results cost no pickling.
        count: number of processes.
        time_limit: seconds that may pass on a task without its result or a `report_progress`.
        tries: processes that may be lost to a task.
    """

    def __init__(self, work: Callable[[Task], Result], *, count: int, time_limit: float, tries: int = 2) -> None:
        self._work, self._time_limit, self._tries = work, time_limit, tries
        self._context = multiprocessing.get_context("forkserver")
        _allow_open_files()
        start_fork_server()
        self._workers: list[_Worker[Task]] = [_Worker(self._context, work) for _ in range(count)]

    def submit(self, number: int, task: Task) -> None:
        """Give a task, under a number, to the process that has the least to do."""
        min(self._workers, key=lambda worker: len(worker.tasks)).give(_Assignment(number, task))

    def receive(self) -> list[tuple[int, Result | Lost]]:
        """The results that came within a moment, with their numbers; none is nothing to worry about.

        Raises:
            RuntimeError: the function raised an error; told with its traceback.
        """
        connection.wait([worker.results for worker in self._workers if worker.tasks], timeout=GLANCE)
        done: list[tuple[int, Result | Lost]] = []
        for place, worker in enumerate(self._workers):
            done += worker.take()
            loss = worker.loss(self._time_limit)
            if loss is not None and worker.is_to_blame:
                worker.tasks[0].losses += 1
                if worker.tasks[0].losses == self._tries:
                    done.append((worker.tasks.popleft().number, loss))
            if loss is not None or worker.done == LIFETIME:
                self._replace(place)
        return done

    def _replace(self, place: int) -> None:
        """End a process and start a new one with the tasks that it has left."""
        old, new = self._workers[place], _Worker(self._context, self._work)
        old.end()
        self._workers[place] = new
        for task in old.tasks:
            new.give(task)

    def close(self) -> None:
        """End the processes, whatever they are at; may be called twice."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Worker(Generic[Task]):
    """A process and the tasks that it was given, in their order; it is at the first of them."""

    def __init__(self, context: ForkServerContext, work: Callable[[Task], Any]) -> None:
        orders, self._orders = context.Pipe(duplex=False)
        self.results, results = socket.socketpair()
        self._inbox = Inbox(self.results)
        self.process = context.Process(target=_serve, args=(orders, results, work), daemon=True)
        with _without_the_program(work):
            self.process.start()
        orders.close()
        results.close()
        self.tasks: deque[_Assignment[Task]] = deque()
        self.done = self._sent = 0
        self._ready = self._begun = self._gone = False
        self._since = time.monotonic()

    @property
    def is_to_blame(self) -> bool:
        """Whether its loss is its task's: it had begun with that, or had a task and could not even start."""
        return bool(self.tasks) and (self._begun or not self._ready)

    def give(self, assignment: _Assignment[Task]) -> None:
        """Add a task."""
        if not self.tasks:
            self._since = time.monotonic()
        self.tasks.append(assignment)
        self._hand_over()

    def _hand_over(self) -> None:
        """Keep the next tasks at the process, never so many that sending would wait for it, or that it gets too old."""
        while self._sent < min(AT_HAND, len(self.tasks), LIFETIME - self.done):
            with contextlib.suppress(ConnectionError):  # it died, as `loss` will find
                self._orders.send((self.tasks[self._sent].task, self._inbox.released()))
            self._sent += 1

    def take(self) -> Iterator[tuple[int, Any]]:
        """The results that have come."""
        try:
            while True:
                result = self._inbox.receive()
                self._since = time.monotonic()
                if isinstance(result, Alive):  # the first says that it has started, others that it is at a task
                    self._begun, self._ready = self._ready, True
                    continue
                self._begun = False
                if isinstance(result, _Broken):
                    raise RuntimeError(f"in a decoder process:\n{result.story}")
                done = self.tasks.popleft()
                self.done += 1
                self._sent -= 1
                self._hand_over()
                yield done.number, result
        except BlockingIOError:
            return
        except Ended:
            self._gone = True

    def loss(self, time_limit: float) -> Lost | None:
        """How the process was lost, if it was."""
        if self._gone:
            self.process.join(_PATIENCE)
            return Lost("crash", f"the process that worked on it died ({_ending(self.process.exitcode)})")
        if self.tasks and self._ready and time.monotonic() - self._since > time_limit:
            return Lost("hang", f"nothing came for {time_limit:g} seconds, so the process at it was killed")
        return None

    def end(self) -> None:
        """Kill it; that ends a stopped process too."""
        self.process.kill()
        self.process.join(_PATIENCE)
        self._orders.close()
        self.results.close()


@contextlib.contextmanager
def _without_the_program(work: object) -> Iterator[None]:
    """Let processes start without importing the program that runs here, unless their work is made of what it defines.

    A script that does not end in ``if __name__ == "__main__":`` would run again in each of them, and in vain.
    """
    program = vars(sys.modules["__main__"])
    if b"__main__" in bytes(ForkingPickler.dumps(work)):
        yield
        return
    hidden: dict[str, Any] = {name: program.pop(name) for name in ("__file__", "__spec__") if name in program}
    program["__spec__"] = None
    try:
        yield
    finally:
        program.update(hidden)


def _ending(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"


def _allow_open_files() -> None:
    """As many as the system allows: results in use take a descriptor each, and 1,024 is a usual limit."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # no Unix; not allowed; more than macOS takes
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


_STOPPING = (signal.SIGINT, signal.SIGTERM)


def start_fork_server() -> None:
    """Start what `Workers` come from; done early, its imports go on beside other work.

    It is deaf to Ctrl-C and SIGTERM. A terminal and torchrun send them to whole process groups. They ask the training
    process to finish its step and save its state, for which it still needs batches.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(["iwin.data.datasets"])
    resource_tracker.ensure_running()  # started by the fork server otherwise, and then it lifts what is blocked here
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ------------------------------------------------------------------------------------ in the worker

_outbox: Outbox | None = None
"""The way to the parent; None in a process that is no worker."""


def report_progress() -> None:
    """Called by the function that processes apply, between the steps of a long task: its time limit begins anew."""
    if _outbox is not None:
        _tell(_outbox.say_alive)


def _serve(orders: Connection, results: socket.socket, work: Callable[[Any], Any]) -> None:
    """Work until the parent has no more tasks or is no more."""
    os.setpgid(0, 0)  # signals for the parent's group are not meant for it
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)  # forgets one that came before that
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # there is a process a core already
    global _outbox
    _outbox = Outbox(results)
    _tell(_outbox.say_alive)
    while True:
        try:
            task, released = orders.recv()
        except (EOFError, ConnectionError):
            return
        except Exception:  # a task that does not unpickle here
            _tell(_outbox.send, _Broken(traceback.format_exc()))
            continue
        _outbox.reclaim(released)
        _tell(_outbox.say_alive)
        try:
            _tell(_outbox.send, work(task))
        except Exception:  # told where the run is told of everything
            _tell(_outbox.send, _Broken(traceback.format_exc()))


def _tell(how: Callable[..., None], *result: Any) -> None:
    try:
        how(*result)
    except ConnectionError:  # the parent is no more
        os._exit(1)


def _leave_with_parent() -> None:
    """End this process when its parent ends, also in the middle of a task."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
