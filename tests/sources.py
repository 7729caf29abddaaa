"""One check over two sources: the compact subset by default, the whole golden set under the `parity` marker.

@over_goldens
def test_something(golden: Golden) -> None:
    arrays = load_npz(golden("data/something.npz"))
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.goldens import SUBSET, full_golden

Golden = Callable[[str], Path]
"""From the name of a golden file, relative to its set, to its path."""


def subset_golden(name: str) -> Path:
    """Path of a file in the subset."""
    return SUBSET / name


over_goldens = pytest.mark.parametrize(
    "golden",
    [
        pytest.param(subset_golden, id="subset"),
        pytest.param(full_golden, id="whole", marks=pytest.mark.parity),
    ],
)
