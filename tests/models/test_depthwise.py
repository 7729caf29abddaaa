"""The depthwise convolution in C++ against PyTorch's in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwin.models.block import DepthwiseConv
from iwin.models.native.depthwise import convolve, takes
from tests.models.precisions import needs, needs_kernels, precisions

PRECISIONS = precisions("convolve")


def by_pytorch(x: Tensor, weight: Tensor, bias: Tensor, plus: Tensor) -> Tensor:
    frames = x.flatten(0, -4).permute(0, 3, 1, 2)
    convolved = nn.functional.conv2d(frames, weight, bias, padding=1, groups=len(weight))
    return convolved.permute(0, 2, 3, 1).reshape(x.shape) + plus


@needs_kernels
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1, 32),  # nothing but borders
        (2, 1, 1, 5, 32),
        (1, 2, 5, 1, 64),
        (2, 3, 2, 2, 96),
        (1, 3, 7, 9, 64),
        (1, 0, 7, 9, 32),
        (2, 1, 4, 5, 8),
        (1, 2, 3, 4, 24),
        (1, 1, 5, 3, 80),
    ],
)
def test_result_and_gradients_equal_pytorchs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.manual_seed(0)
    weight, bias = torch.randn(shape[-1], 1, 3, 3), torch.randn(shape[-1])
    x, plus, grad = (torch.randn(shape).to(dtype) for _ in range(3))
    given = [tensor.requires_grad_() for tensor in (x, weight, bias, plus)]
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    made, expected = convolve(*given), by_pytorch(*exact)
    assert made.dtype == dtype
    found = (made, *torch.autograd.grad(made, given, grad))
    right = (expected, *torch.autograd.grad(expected, exact, grad.double()))
    for fast, exactly, like in zip(found, right, (x, *given), strict=True):
        assert fast.dtype == like.dtype
        torch.testing.assert_close(fast.double(), exactly, rtol=tolerance, atol=tolerance)


@needs_kernels
def test_maps_of_any_strides_are_taken() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(32, 1, 3, 3), torch.randn(32)
    x, plus = torch.randn(2, 9, 7, 3, 32).transpose(1, 3), torch.randn(2, 3, 7, 12, 32)[..., :9, :]
    torch.testing.assert_close(convolve(x, weight, bias, plus), by_pytorch(x, weight, bias, plus), rtol=1e-5, atol=1e-5)


@needs_kernels
def test_a_number_beside_the_map_does_not_count() -> None:
    x = torch.ones(1, 1, 3, 3, 32)
    x[0, 0, 0, 0] = torch.inf
    made = convolve(x, torch.ones(32, 1, 3, 3), torch.zeros(32), torch.zeros_like(x))
    assert made.isinf().sum() == 4 * 32
    assert not made.isnan().any()


@needs_kernels
def test_only_the_gradients_that_are_asked_for_are_made() -> None:
    weight, x = torch.randn(32, 1, 3, 3, requires_grad=True), torch.randn(1, 1, 4, 4, 32)
    for bias in (None, torch.zeros(32)):
        (grad,) = torch.autograd.grad(convolve(x, weight, bias, x).sum(), weight)
        assert grad.shape == weight.shape
    assert not convolve(x, weight.detach(), None, x).requires_grad


@needs("convolve_bf16")
def test_it_computes_in_autocasts_precision() -> None:
    layer, x = DepthwiseConv(32), torch.randn(1, 2, 4, 4, 32)
    with torch.autocast("cpu", torch.bfloat16):
        made = layer(x, x)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), layer(x, x), rtol=2e-2, atol=2e-2)


@pytest.mark.slow
@needs_kernels
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck's own
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_operators_hold_to_what_pytorch_expects_of_them(dtype: torch.dtype) -> None:
    x, plus = (torch.randn(1, 2, 4, 6, 32, dtype=dtype, requires_grad=True) for _ in range(2))
    conv = nn.Conv2d(32, 32, 3, padding=1, groups=32)
    torch.library.opcheck(torch.ops.iwin.native_depthwise.default, (x, conv.weight, conv.bias, plus))
    torch.library.opcheck(torch.ops.iwin.native_depthwise_gradients.default, (x.detach(), plus.detach()))


@needs_kernels
def test_other_layers_and_those_that_are_watched_are_left_to_pytorch() -> None:
    layer, x = DepthwiseConv(32), torch.randn(1, 2, 4, 4, 32)
    assert takes(x, layer.depthwise)
    assert not takes(x.double(), layer.depthwise)
    assert not takes(torch.zeros(1, 2, 4, 4, 36), nn.Conv2d(36, 36, 3, padding=1, groups=36))
    assert not takes(x, nn.Identity())
    others: list[dict[str, Any]] = [
        {"kernel_size": 5, "padding": 2},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": 1, "groups": 16},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": 1, "stride": 2},
    ]
    for other in others:
        assert not takes(x, nn.Conv2d(32, 32, **{"groups": 32, **other})), other
    expected, seen = layer(x, x), []
    layer.depthwise.register_forward_hook(lambda *_: seen.append(1))
    assert not takes(x, layer.depthwise)
    torch.testing.assert_close(layer(x, x), expected, rtol=1e-5, atol=1e-5)
    assert seen == [1]
