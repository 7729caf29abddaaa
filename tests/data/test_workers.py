"""Processes that work, crash, hang and are stopped, for real."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from iwin.data.workers import Lost, Workers


def work(task: Any) -> Any:
    """What the processes of these tests do, by the word that the task begins with."""
    match task:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            ctypes.PyDLL(None).pause()  # in C, without letting other threads run
        case "sleep":
            time.sleep(600)
        case "exit":
            os._exit(3)
        case "raise":
            raise ZeroDivisionError("a mistake")
        case ("crash once", path):
            with contextlib.suppress(FileExistsError), Path(path).open("x"):
                os.kill(os.getpid(), signal.SIGKILL)
        case ("clip", value):
            return {"views": torch.full((2, 3), value), "noise": torch.arange(value * 1000)}
        case "pid":
            return os.getpid()
        case "unpicklable":
            return lambda: None
        case "die later":
            threading.Timer(0.2, os._exit, [7]).start()
    return task


@contextlib.contextmanager
def workers(count: int = 1, *, time_limit: float = 60.0) -> Iterator[Workers[Any, Any]]:
    with Workers(work, count=count, time_limit=time_limit) as pool:
        yield pool


def results(pool: Workers[Any, Any], tasks: list[Any]) -> list[Any]:
    for number, task in enumerate(tasks):
        pool.submit(number, task)
    done: dict[int, Any] = {}
    while len(done) < len(tasks):
        done |= dict(pool.receive())
    return [done[number] for number in range(len(tasks))]


def test_every_task_has_its_result() -> None:
    with workers(2) as pool:
        assert results(pool, list(range(20))) == list(range(20))
        assert results(pool, ["again", None]) == ["again", None]


def test_tensors_arrive_as_they_are_and_can_be_written_to() -> None:
    with workers() as pool:
        [small, large, empty] = results(pool, [("clip", 1), ("clip", 5), ("clip", 0)])
    for value, result in ((1, small), (5, large), (0, empty)):
        assert torch.equal(result["views"], torch.full((2, 3), value))
        assert torch.equal(result["noise"], torch.arange(value * 1000))
    large["views"] += 1
    assert torch.equal(large["views"], torch.full((2, 3), 6))


@pytest.mark.parametrize(("trouble", "reason"), [("crash", "SIGSEGV"), ("exit", "exit status 3")])
def test_a_process_that_dies_is_replaced_and_its_task_is_lost(trouble: str, reason: str) -> None:
    with workers() as pool:
        before, lost, after = results(pool, [1, trouble, 2])
    assert (before, after) == (1, 2)
    assert isinstance(lost, Lost)
    assert reason in lost.reason


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["hang", "sleep"])
def test_a_process_that_hangs_is_replaced_and_its_task_is_lost(trouble: str) -> None:
    with workers(2, time_limit=0.3) as pool:
        *good, lost = results(pool, [1, 2, 3, trouble])
    assert good == [1, 2, 3]
    assert lost == Lost("hang", "nothing came for 0.3 seconds, so the process at it was killed")


def test_a_task_has_a_second_try(tmp_path: Path) -> None:
    with workers() as pool:
        assert results(pool, [1, ("crash once", str(tmp_path / "tried")), 2])[::2] == [1, 2]


def test_a_stopped_process_is_replaced() -> None:
    with workers(time_limit=0.5) as pool:
        (first,) = results(pool, ["pid"])
        os.kill(first, signal.SIGSTOP)
        (second,) = results(pool, ["pid"])
        assert second != first
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)


@pytest.mark.parametrize(("task", "told"), [("raise", "ZeroDivisionError: a mistake"), ("unpicklable", "pickle")])
def test_a_mistake_is_raised_with_its_place(task: str, told: str) -> None:
    with workers() as pool, pytest.raises(RuntimeError, match=told):
        results(pool, [task])


def test_a_process_that_dies_at_once_is_replaced() -> None:
    with workers() as pool:
        first = pool._workers[0]
        first.process.kill()
        while pool._workers[0] is first:
            assert pool.receive() == []
        assert results(pool, [1]) == [1]


def test_a_process_that_dies_between_tasks_costs_none() -> None:
    with Workers(work, count=1, time_limit=60, tries=1) as pool:
        assert results(pool, ["die later"]) == ["die later"]
        time.sleep(0.5)
        assert results(pool, [1, 2]) == [1, 2]


def test_closing_ends_all_processes() -> None:
    with workers(2) as pool:
        pids = set(results(pool, ["pid"] * 8))
        pool.submit(0, "sleep")
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_a_process_has_sent_outlives_it() -> None:
    with workers() as pool:
        pool.submit(0, ("clip", 3))
        pool.submit(1, "crash")
        done: dict[int, Any] = {}
        time.sleep(0.5)  # until it has died with its result unread
        while len(done) < 2:
            done |= dict(pool.receive())
    assert torch.equal(done[0]["views"], torch.full((2, 3), 3))
    assert isinstance(done[1], Lost)


def test_many_tasks_wait_here_and_not_in_a_full_pipe() -> None:
    with workers() as pool:
        assert results(pool, list(range(1000))) == list(range(1000))


@pytest.mark.slow
def test_a_hang_is_found_behind_many_tasks() -> None:
    with workers(time_limit=0.5) as pool:
        found = results(pool, ["hang", *range(400)])
    assert isinstance(found[0], Lost)
    assert found[1:] == list(range(400))


def test_a_process_gives_way_to_a_new_one_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwin.data.workers.LIFETIME", 5)
    with workers(2) as pool:
        assert results(pool, list(range(40))) == list(range(40))
        pids = results(pool, ["pid"] * 40)
    assert max(map(pids.count, pids)) == 5


INTERRUPTED = """
import os, signal, threading, time
from iwin.data.workers import Workers, start_fork_server
signal.signal(signal.SIGINT, lambda *_: None)

def interrupt():
    time.sleep(1)
    while True:
        os.killpg(0, signal.SIGINT)
        time.sleep(0.05)

if __name__ == "__main__":
    start_fork_server()
    threading.Thread(target=interrupt, daemon=True).start()  # it imports PyTorch, then the processes begin
    with Workers(abs, count=2, time_limit=60) as pool:
        pool.submit(0, -7)
        while not (done := pool.receive()):
            pass
        print(done)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_a_signal_for_the_group_does_not_reach_processes_that_start(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(INTERRUPTED)
    command = [sys.executable, "script.py"]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, start_new_session=True, timeout=100
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[(0, 7)]\n", "")
