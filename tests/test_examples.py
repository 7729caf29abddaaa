import runpy
from pathlib import Path

import numpy as np

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "make_demo_data.py"))


def test_demo_files_are_the_same_whatever_lay_in_memory_before(tmp_path: Path) -> None:
    frames = EXAMPLE["clip"]("fall", np.random.default_rng([0, 0, 8]))
    made = set()
    for number in range(40):
        left = np.random.default_rng(number).bytes(50_000 + 9_000 * number)
        del left
        EXAMPLE["write"](tmp_path / "clip.mp4", frames)
        made.add((tmp_path / "clip.mp4").read_bytes())
    assert len(made) == 1
