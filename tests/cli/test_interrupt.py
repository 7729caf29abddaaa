"""Ctrl-C ends a command with one line, whatever it is at."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iwin.cli.interrupt import plain_interrupts
from tests.prepare.files import write_clip

SWALLOWING = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
except BaseException:
    pass
"""


def test_an_import_that_would_swallow_it_does_not(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text(SWALLOWING)
    script = (
        "from iwin.cli.interrupt import plain_interrupts\n"
        "with plain_interrupts():\n"
        "    print('begun')\n"
        "    import library\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "begun\n", "iwin: interrupted\n")


def test_elsewhere_it_is_raised_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), plain_interrupts():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.3, 1.8, 2.3, 2.8])
def test_a_terminal_interrupts_the_processes_of_a_command_too(tmp_path: Path, seconds: float) -> None:
    """A terminal sends it to all processes of the group: the command, the fork server and what that has started."""
    for number in range(40):
        write_clip(tmp_path / "clips" / "a" / f"{number:02}.mp4", first=number, count=60, height=128, width=192)
    command = [sys.executable, "-m", "iwin", "data", "resize", "clips", "--out", "out", "--preset", "veryslow"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        time.sleep(seconds)
        assert running.poll() is None
        os.killpg(running.pid, signal.SIGINT)
        assert running.stderr is not None
        assert running.stderr.read() == "iwin: interrupted\n"
    assert running.returncode == 130
