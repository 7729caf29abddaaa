"""Work in processes that hang, crash and raise."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iwin.data.workers import Lost
from iwin.prepare.pool import run_all
from tests.prepare.jobs import behave


def outcomes(items: list[str], *, processes: int = 2, time_limit: float = 60) -> list[str | Lost]:
    results = dict(run_all(behave, items, processes=processes, time_limit=time_limit))
    assert sorted(results) == list(range(len(items)))
    return [results[index] for index in range(len(items))]


@pytest.mark.parametrize("processes", [1, 2, 9])
def test_every_item_gets_its_result(processes: int) -> None:
    items = [f"item {number}" for number in range(7)]
    assert outcomes(items, processes=processes) == [item.upper() for item in items]


def test_there_may_be_nothing_to_do() -> None:
    assert outcomes([]) == []


def test_a_crash_costs_its_own_item_only() -> None:
    first, crashed, *others = outcomes(["a", "crash", "b", "c", "d"])
    assert isinstance(crashed, Lost)
    assert (crashed.kind, "SIGSEGV" in crashed.reason) == ("crash", True)
    assert [first, *others] == ["A", "B", "C", "D"]


def test_hung_and_stopped_processes_are_killed_and_the_others_go_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    hung, a, stopped, b, raised = outcomes([str(tmp_path / "pipe"), "a", "stop", "b", "raise"], time_limit=0.5)
    assert isinstance(hung, Lost)
    assert isinstance(stopped, Lost)
    assert hung.kind == stopped.kind == "hang"
    assert (a, b) == ("A", "B")
    assert raised == Lost("error", "RuntimeError: no such luck")


@pytest.mark.slow
def test_progress_puts_the_time_limit_off() -> None:
    assert outcomes(["long"], time_limit=1.0) == ["LONG"]


def test_processes_end_when_the_iteration_is_left(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    results = run_all(behave, ["pid", *[str(tmp_path / "pipe")] * 3], processes=1, time_limit=60)
    _, pid = next(results)
    assert isinstance(pid, str)
    del results  # which closes the generator
    assert gone(int(pid))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys\n"
        "from iwin.prepare.pool import run_all\n"
        "from tests.prepare.jobs import behave\n"
        "if __name__ == '__main__':\n"
        "    for _, pid in run_all(behave, ['pid', sys.argv[1]], processes=1, time_limit=60):\n"
        "        print(pid, flush=True)\n"
    )
    root = str(Path(__file__).parents[2])
    command = [sys.executable, str(script), str(tmp_path / "pipe")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert gone(pid)


def gone(pid: int) -> bool:
    """Whether a process ends; one that does not is waited for in vain until the test's time is up."""
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
