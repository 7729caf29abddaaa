"""LayerNorm, GELU and sums in C++ against PyTorch's in float64."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwin.models.block import IwinBlock, Mlp
from iwin.models.kernels.layers import LayerNorm
from iwin.models.native import tokens
from tests.models.precisions import error, needs_kernels, pairs, precisions

pytestmark = needs_kernels
PRECISIONS = precisions("gelu")
PAIRS = pairs("gelu")
ROUNDING = 2**-8
"""Largest relative error of what is rounded to bf16."""


def exact_gelu(x: Tensor) -> Tensor:
    """By erfc, since 1 + erf has no digits left far below 0."""
    return x * torch.special.erfc(-x / math.sqrt(2)) / 2


# ------------------------------------------------------------------------------------------- GELU


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_gelu_is_close_at_every_size(dtype: torch.dtype) -> None:
    x = torch.linspace(-12, 12, 32 * 4000).view(-1, 32).to(dtype)
    exact = exact_gelu(x.double())
    assert tokens.takes(x)
    made = torch.empty_like(x)
    assert tokens.gelu(x, made) is made
    allowed = 3e-7 * x.double().abs() if dtype == torch.float32 else 2 * ROUNDING * exact.abs() + 1e-12
    assert ((made.double() - exact).abs() <= allowed).all()
    assert torch.equal(tokens.gelu(x, x), made)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_gelus_gradient_is_close_at_every_size(dtype: torch.dtype) -> None:
    x = torch.linspace(-12, 12, 32 * 4000).view(-1, 32).to(dtype)
    grad = torch.randn_like(x)
    exact_input = x.double().requires_grad_()
    (exact,) = torch.autograd.grad(exact_gelu(exact_input), exact_input, grad.double())
    found = grad.clone()
    again = tokens.gelu_backward_(x, found)
    allowed = 4e-7 * grad.double().abs()
    if dtype == torch.bfloat16:
        allowed = 3e-4 * grad.double().abs() + ROUNDING * exact.abs()
    assert ((found.double() - exact).abs() <= allowed).all()
    assert torch.equal(again, tokens.gelu(x, torch.empty_like(x)))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_gelu_of_numbers_at_the_end_and_of_none(dtype: torch.dtype) -> None:
    x = torch.zeros(32, dtype=dtype)
    x[:6] = torch.tensor([0.0, 1e20, -1e20, math.inf, 1e38, -1e38])
    x[6] = math.nan
    slopes = torch.ones_like(x)
    for made in (tokens.gelu(x, torch.empty_like(x)), tokens.gelu_backward_(x, slopes)):
        assert made[:6].tolist() == [*x[:2].tolist(), 0.0, math.inf, x[4].item(), 0.0]
        assert made[6].isnan()
    assert slopes[:6].tolist() == [0.5, 1.0, 0.0, 1.0, 1.0, 0.0]
    assert slopes[6].isnan()


def test_a_mlp_gives_what_its_layers_would(any_threads: Callable[[Callable[[], list[Tensor]]], None]) -> None:
    torch.manual_seed(0)
    mlp, x = Mlp(32, 128), torch.randn(2, 3, 5, 32, requires_grad=True)

    def results() -> list[Tensor]:
        made = mlp(x)
        return [made, *torch.autograd.grad(made.square().sum(), [x, *mlp.parameters()])]

    fast = results()
    any_threads(results)
    mlp.act.register_forward_hook(lambda *_: None)  # then it is called
    for found, plain in zip(fast, results(), strict=True):
        assert error(found, plain.double()) < 2e-6


# ------------------------------------------------------------------------------------------- LayerNorm and sums


@pytest.mark.parametrize("channels", [8, 24, 32, 80, 96, 1536])
@pytest.mark.parametrize(("dtype", "mixed"), PAIRS)
def test_layer_norm_equals_its_definition_forward_and_backward(
    dtype: torch.dtype, mixed: bool, channels: int, any_threads: Callable[[Callable[[], list[Tensor]]], None]
) -> None:
    torch.manual_seed(0)
    norm = LayerNorm(channels)
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.normal_(norm.bias)
    norm.to(dtype)
    x = (torch.randn(2, 7, 11, channels) * 3 + 5).to(dtype).requires_grad_()
    made_in = torch.bfloat16 if mixed else dtype
    grad = torch.randn(x.shape).to(made_in)

    def results() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            assert tokens.norms(x, norm)
            made = norm(x)
        return [made, *torch.autograd.grad(made, [x, norm.weight, norm.bias], grad)]

    found = results()
    any_threads(results)
    exact_input = x.detach().double().requires_grad_()
    weights = [weight.detach().double().requires_grad_() for weight in (norm.weight, norm.bias)]
    made = F.layer_norm(exact_input, (channels,), weights[0], weights[1], norm.eps)
    exact = [made, *torch.autograd.grad(made, [exact_input, *weights], grad.double())]
    for value, right, kind in zip(found, exact, [made_in, dtype, dtype, dtype], strict=True):
        assert value.dtype == kind
        assert error(value, right) < (2e-6 if kind == torch.float32 else 3e-3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert torch.equal(norm(x), found[0])


@pytest.mark.parametrize("channels", [24, 64])
@pytest.mark.parametrize(("dtype", "mixed"), PAIRS)
def test_a_sum_and_its_norm(dtype: torch.dtype, mixed: bool, channels: int) -> None:
    torch.manual_seed(0)
    norm, shape = LayerNorm(channels), (3, 5, channels)
    x, plus = torch.randn(shape).to(dtype), torch.randn(shape).to(torch.bfloat16 if mixed else dtype)
    total = torch.empty_like(x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        made = tokens.add_and_norm(x, plus, norm, total=total)
        assert torch.equal(total, x + plus)
        assert torch.equal(made, norm(total))
        tokens.add_(total, plus)
        assert torch.equal(total, (x + plus) + plus)


def test_rows_of_any_strides_and_none_are_taken() -> None:
    norm, x = LayerNorm(32), torch.randn(2, 32, 5, requires_grad=True).transpose(1, 2)
    assert not x.is_contiguous()
    assert torch.equal(norm(x), norm(x.contiguous()))
    (grad,) = torch.autograd.grad(norm(x).square().sum(), x)
    (plain,) = torch.autograd.grad(F.layer_norm(x, (32,), norm.weight, norm.bias).square().sum(), x)
    torch.testing.assert_close(grad, plain, rtol=1e-4, atol=1e-5)
    assert norm(x[:0]).shape == (0, 5, 32)


def test_what_the_kernels_do_not_do_is_left_to_pytorch() -> None:
    x = torch.zeros(2, 32)
    assert tokens.norms(x, LayerNorm(32))
    assert not tokens.norms(x, LayerNorm(32, bias=False))
    assert not tokens.norms(x, LayerNorm(32, elementwise_affine=False))
    assert not tokens.norms(x, LayerNorm((2, 32)))
    assert not tokens.norms(torch.zeros(2, 20), LayerNorm(20))
    for other in (x.double(), x.half(), x.to("meta")):
        assert not tokens.norms(other, LayerNorm(32))
        assert not tokens.takes(other)


def test_a_block_without_gradients_gives_what_its_layers_would() -> None:
    torch.manual_seed(0)
    block, x = IwinBlock(64, num_heads=2).eval(), torch.randn(1, 2, 9, 14, 64)
    for mixed in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            fast = block(x)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(tokens, "runs", lambda *_: False)
                plain = block(x)
        assert fast.dtype == plain.dtype == torch.float32
        assert error(fast, plain.double()) < (5e-3 if mixed else 1e-6)
