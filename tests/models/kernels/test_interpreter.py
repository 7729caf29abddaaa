import os
import subprocess
import sys
from pathlib import Path

import pytest

from iwin.models.kernels import ops

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(not ops.HAS_TRITON, reason="PyTorch brings Triton on Linux")


@pytest.mark.slow
@needs_triton
def test_kernels_are_right_through_tritons_interpreter() -> None:
    """In a process of its own, since Triton chooses between compiling and interpreting when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-m", "not gpu"]
    run = subprocess.run(
        [*command, HERE / "test_window_attention.py", HERE / "test_layers.py"],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
