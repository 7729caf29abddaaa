"""The code in the documents runs: every block that is not marked, in the order of its page, on a little demo data."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iwin.config import load_run_config
from tests.docs.pages import PAGES, ROOT, Block, blocks

SMALL = ["--cfg-options", "total_epochs=1", "data.workers_per_gpu=0"]

RUN = [page for page in PAGES if any(block.is_run or "file" in block.directives for block in blocks(page))]


class Shell:
    """Runs commands: Python's in forks of one warm process, all others in bash.

    Args:
        server: the warm process.
        output: file for what a command prints.
    """

    def __init__(self, server: "subprocess.Popen[str]", output: Path) -> None:
        self.server = server
        self.output = output

    def python(self, *argv: str, folder: Path) -> tuple[int, str]:
        """Exit status and output of `python …`."""
        assert self.server.stdin
        assert self.server.stdout
        job = {"folder": str(folder), "output": str(self.output), "argv": argv}
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline()), self.output.read_text(encoding="utf-8")

    def command(self, line: str, *, folder: Path) -> tuple[int, str]:
        """Exit status and output of a line of shell."""
        words = [] if set(line) & set("|&;<>$`") else shlex.split(line.replace("\\\n", " "), comments=True)
        if words[:1] == ["iwin"]:
            return self.python("-m", *words, folder=folder)
        if words[:1] == ["python"]:
            return self.python(*words[1:], folder=folder)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Something to run commands with."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.docs.zygote"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield Shell(process, tmp_path_factory.mktemp("output") / "output.txt")
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=60)


@pytest.fixture(scope="module")
def reader(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has after two pages: the checkout, the demo data and run, clips of their own and lists of them."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("configs", "examples", "tools"):
        (folder / name).symlink_to(ROOT / name)
    for command in (
        "python examples/make_demo_data.py demo/data --train 2 --val 1",
        f"iwin train iwin_nano_demo --work-dir demo/run {' '.join(SMALL)}",
        "cp -r demo/data clips",
        "iwin tool build_file_list clips lists",
    ):
        status, output = shell.command(command, folder=folder)
        assert status == 0, output
    shutil.copy(folder / "clips" / "val" / "rise" / "000.mp4", folder / "some_video.mp4")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, shell: Shell, reader: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(reader, folder, symlinks=True)
    for block in blocks(page):
        run_block(block, shell, folder)


def run_block(block: Block, shell: Shell, folder: Path) -> None:
    """Run a block as its directives say."""
    if first := block.directives.get("first"):
        status, output = shell.command(first, folder=folder)
        assert status == 0, f"{block.where}: {first}\n{output}"
    if name := block.directives.get("file"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        if path.suffix == ".py":
            load_run_config(path)
    elif not block.is_run:
        return
    elif block.language == "python":
        status, output = shell.python("-c", block.text, folder=folder)
        assert status == 0, f"{block.where}:\n{output}"
    else:
        for command in block.commands():
            line = f"{command} {block.directives.get('run with', '')}"
            status, output = shell.command(line, folder=folder)
            if expected := block.directives.get("fails with"):
                assert status != 0, f"{block.where}: {line}\n{output}"
                assert expected in output
            else:
                assert status == 0, f"{block.where}: {line}\n{output}"
