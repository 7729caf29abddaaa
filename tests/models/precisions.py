"""Precisions of the kernels for CPUs, and how far a result is from the exact one."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from iwin.models.native.common import NAMES
from iwin.native import has


def precisions(source: Path, kernel: str) -> list[Any]:
    """Parameters of a test, one a precision; skipped where this CPU has no kernel for it."""
    return [
        pytest.param(
            dtype,
            id=name,
            marks=pytest.mark.skipif(not has(source, f"{kernel}_{name}"), reason=f"there is no {name} kernel here"),
        )
        for dtype, name in NAMES.items()
    ]


def error(found: Tensor, exact: Tensor) -> float:
    """Relative error by the norm."""
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())
