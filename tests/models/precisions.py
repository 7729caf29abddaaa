"""Precisions of the kernels for CPUs, and how far a result is from the exact one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from iwin.models.native.common import NAMES, SOURCE, exists, has_half
from iwin.native import library

needs_kernels = pytest.mark.skipif(library(SOURCE) is None, reason="the kernels cannot be compiled here")
"""Skip a test where there are none."""

needs_bf16 = pytest.mark.skipif(not has_half("bf16"), reason="this CPU does not multiply in bf16")


def precisions(kernel: str) -> list[Any]:
    """Parameters of a test, one a precision; skipped where this CPU has no kernel for it."""
    return [pytest.param(dtype, id=name, marks=needs(f"{kernel}_{name}")) for dtype, name in NAMES.items()]


def pairs(kernel: str) -> list[Any]:
    """The same with whether products are in autocast's bf16."""
    return [
        pytest.param(torch.float32, False, id="fp32", marks=needs(f"{kernel}_fp32")),
        pytest.param(torch.float32, True, id="autocast", marks=needs(f"{kernel}_bf16")),
        pytest.param(torch.bfloat16, False, id="bf16", marks=needs(f"{kernel}_bf16")),
    ]


def needs(kernel: str) -> pytest.MarkDecorator:
    """Skip a test where this CPU has no such kernel."""
    return pytest.mark.skipif(not exists(kernel), reason=f"there is no {kernel} here")


def error(found: Tensor, exact: Tensor) -> float:
    """Relative error by the norm."""
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())


def assert_differentiates(
    run: Callable[[], Tensor],
    definition: Callable[..., Tensor],
    given: Sequence[Tensor],
    *,
    mixed: bool,
    tolerances: Mapping[torch.dtype, float],
) -> list[Tensor]:
    """Assert that a result and its gradients are those of a definition in float64, and have the right precisions.

    Args:
        run: what is tested.
        definition: of `given`, in float64.
        given: what `run` works on, and has gradients.
        mixed: whether it runs in autocast's bf16.
        tolerances: relative errors, by the precision of the result.

    Returns:
        The result and the gradients.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        made = run()
    assert made.dtype == (torch.bfloat16 if mixed else given[0].dtype)
    grad = torch.randn(made.shape).to(made.dtype)
    found = [made, *torch.autograd.grad(made, given, grad)]
    exactly = [tensor.detach().double().requires_grad_() for tensor in given]
    exact = definition(*exactly)
    right = [exact, *torch.autograd.grad(exact, exactly, grad.double())]
    for value, expected in zip(found, right, strict=True):
        assert error(value, expected) < tolerances[made.dtype]
    for value, tensor in zip(found[1:], given, strict=True):
        assert value.dtype == tensor.dtype
    return found
