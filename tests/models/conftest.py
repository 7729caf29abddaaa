"""What the tests of kernels share."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor


@pytest.fixture
def any_threads() -> Iterator[Callable[[Callable[[], list[Tensor]]], None]]:
    """Assert that a result does not depend on the number of threads."""
    before = torch.get_num_threads()

    def check(results: Callable[[], list[Tensor]]) -> None:
        torch.set_num_threads(1)
        alone = results()
        torch.set_num_threads(3)
        assert all(torch.equal(a, b) for a, b in zip(alone, results(), strict=True))

    yield check
    torch.set_num_threads(before)
