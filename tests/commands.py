"""Running the command inside the test process, as its users would: same arguments, same files, same output."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from accelerate.state import AcceleratorState

from iwin.cli import main, train
from tests.runs import write_class_folders

SMALL = ["data.workers_per_gpu=0", "log_config.interval=1", "data.videos_per_gpu=3"]
"""Config options of a run that is small and starts no other process."""

SEVERAL = [
    "--cfg-options",
    *(f"data.{split}.multi_class=True" for split in ("train", "val", "test")),
    "model.cls_head.multi_class=True",
    "model.cls_head.loss_cls.type=BCELossWithLogits",
]
"""Config options for lists of several labels a video."""


@dataclass(frozen=True)
class Result:
    """What a command left: exit status, standard output and standard error."""

    status: int
    out: str
    err: str


def iwin(*args: object, cwd: Path) -> Result:
    """Run `iwin …` in a folder."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
        contextlib.chdir(cwd),
        _environment(),
    ):
        try:
            status = main([str(arg) for arg in args])
        except SystemExit as left:
            status = int(left.code or 0)
    return Result(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """A process of its own, as far as the environment and Accelerate's global state go."""
    before = dict(os.environ)
    os.environ["COLUMNS"] = "120"
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        with patch.object(train, "keep_memory"):  # it lasts as long as a process, and this one is not the command's
            yield
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips/{train,val} of three classes, one broken video in val, and run/ trained for an epoch.

    run.txt holds what training said. Tests write into folders of their own.
    """
    root = tmp_path_factory.mktemp("trained")
    write_class_folders(root / "clips" / "train", clips=3)
    write_class_folders(root / "clips" / "val", clips=2)
    (root / "clips" / "val" / "class 2" / "broken.mp4").write_bytes(b"not a video")
    options = ["--data", "clips", "--work-dir", "run", "--cfg-options", *SMALL, "total_epochs=1"]
    result = iwin("train", "iwin_nano_demo", *options, cwd=root)
    assert result.status == 0, result.err
    (root / "run.txt").write_text(result.err)
    return root
