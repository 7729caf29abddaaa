"""LayerNorm and the linear layer with its GELU against PyTorch's: on a GPU (`-m gpu`), or through Triton's interpreter.

TRITON_INTERPRET=1 pytest tests/models/kernels/test_layers.py
"""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwin.models.block import IwinBlock, Mlp
from iwin.models.kernels import ops
from iwin.models.kernels.layers import LayerNorm
from tests.models.kernels.calls import Calls, calls_when_compiled

INTERPRETED = ops.DEVICE == "cpu"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
HALVES = [torch.float16, torch.bfloat16]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(ops.DEVICE)


def error(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact).norm() / exact.norm())


def assert_rounded_once(value: Tensor, exact: Tensor) -> None:
    """That a value errs as one does that was computed in float32, and then rounded to its precision."""
    # The interpreter cuts bfloat16 off where hardware rounds: twice the error, give or take what chance adds.
    cut = 2.2 if INTERPRETED and value.dtype == torch.bfloat16 else 1
    assert error(value, exact) < 1e-6 + cut * error(exact.to(value.dtype), exact)


def autocast() -> torch.autocast:
    return torch.autocast(ops.DEVICE, torch.bfloat16)


def joined(mlp: Mlp, x: Tensor) -> bool:
    """Whether an MLP calls it."""
    with Calls() as calls:
        mlp(x)
    return calls.counts["iwin::linear_gelu"] > 0


# 16 rows of 96 channels a program: whole and broken blocks, few and many channels.
@pytest.mark.parametrize("shape", [(2, 2, 3, 4, 96), (1, 3, 5, 1, 16), (3, 100), (2, 1500)], ids=str)
def test_layer_norm_and_its_gradients(shape: Sequence[int]) -> None:
    inputs = [1 + 3 * draw(*shape), draw(shape[-1], seed=1), draw(shape[-1], seed=2)]
    grad = draw(*shape, seed=3)
    single = [x.requires_grad_() for x in inputs]
    double = [x.detach().double().requires_grad_() for x in inputs]
    out = ops.layer_norm(single[0], single[1], single[2], 1e-5)
    exact = F.layer_norm(double[0], shape[-1:], double[1], double[2], 1e-5)
    assert error(out.detach(), exact.detach()) < 3e-7
    for value, right in zip(
        torch.autograd.grad(out, single, grad), torch.autograd.grad(exact, double, grad.double()), strict=True
    ):
        assert error(value, right) < 1e-6


@pytest.mark.parametrize("shape", [(2, 2, 3, 4, 96), (3, 100)], ids=str)
@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("half_weights", [False, True])
def test_layer_norm_of_half_precision_and_its_gradients(
    shape: Sequence[int], half: torch.dtype, half_weights: bool
) -> None:
    of_weights = half if half_weights else torch.float32
    weights = [draw(shape[-1], seed=seed).to(of_weights) for seed in (1, 2)]
    inputs = [x.requires_grad_() for x in ((1 + 3 * draw(*shape)).to(half), *weights)]
    double = [x.detach().double().requires_grad_() for x in inputs]
    grad = draw(*shape, seed=3).to(half)
    out = ops.layer_norm(inputs[0], inputs[1], inputs[2], 1e-5)
    exact = F.layer_norm(double[0], shape[-1:], double[1], double[2], 1e-5)
    assert out.dtype == half
    assert_rounded_once(out.detach(), exact.detach())
    gradients = torch.autograd.grad(out, inputs, grad)
    assert [x.dtype for x in gradients] == [half, of_weights, of_weights]
    for value, right in zip(gradients, torch.autograd.grad(exact, double, grad.double()), strict=True):
        assert_rounded_once(value, right)


def test_layer_norm_adds_up_the_gradients_of_several_blocks_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    from iwin.models.kernels import layer_norm

    monkeypatch.setattr(layer_norm, "_PROGRAMS", 2)
    C = 96
    block, _ = layer_norm._sizes(C)
    rows = 5 * block + 3  # three blocks a program, the last of the second one not full
    padding = torch.full((block, C), torch.nan, device=ops.DEVICE)  # spoils the sums if a block reads past the rows
    x, grad = (torch.cat([draw(rows, C, seed=seed), padding])[:rows] for seed in (0, 1))
    single = [x.requires_grad_(), draw(C, seed=2).requires_grad_(), draw(C, seed=3).requires_grad_()]
    double = [x.detach().double().requires_grad_() for x in single]
    out = ops.layer_norm(single[0], single[1], single[2], 1e-5)
    exact = F.layer_norm(double[0], (C,), double[1], double[2], 1e-5)
    for value, right in zip(
        torch.autograd.grad(out, single, grad), torch.autograd.grad(exact, double, grad.double()), strict=True
    ):
        assert error(value, right) < 1e-6


def test_layer_norm_of_rows_without_variance_and_far_from_zero() -> None:
    x = torch.cat([torch.full((1, 64), 7.0), 1e4 + torch.randn(1, 64, generator=torch.Generator().manual_seed(0))])
    x = x.to(ops.DEVICE)
    weight, bias = draw(64), draw(64, seed=1)
    exact = F.layer_norm(x.double(), (64,), weight.double(), bias.double(), 1e-5)
    assert error(ops.layer_norm(x, weight, bias, 1e-5), exact) < 5e-3  # 1e4 leaves float32 few digits


def test_layer_norm_is_written_in_the_precision_that_reads_it() -> None:
    norm = LayerNorm(32).to(ops.DEVICE)
    x = draw(2, 3, 32).requires_grad_()
    assert norm(x).dtype == torch.float32
    with autocast():
        out = norm(x)
    assert out.dtype == torch.bfloat16
    rounded = nn.LayerNorm.forward(norm, x).bfloat16()
    assert (out.float() - rounded.float()).abs().max() <= 0.02  # the last digit may differ; the interpreter cuts it off
    assert torch.autograd.grad(out.sum(), x)[0].dtype == torch.float32


def test_layer_norm_is_left_to_the_compiler() -> None:
    names = " ".join(calls_when_compiled(LayerNorm(32).to(ops.DEVICE), draw(2, 32)))
    assert "layer_norm" in names
    assert "iwin" not in names


@pytest.mark.parametrize(("rows", "C", "N"), [(70, 32, 48), (33, 96, 384), (5, 64, 100)])
def test_linear_gelu_to_float32(rows: int, C: int, N: int) -> None:
    x, weight, bias = 2 * draw(rows, C), draw(N, C, seed=1) / C**0.5, draw(N, seed=2)
    exact = F.gelu(F.linear(x.double(), weight.double(), bias.double()))
    out = ops.linear_gelu(x, weight, bias)
    assert error(out, exact) < 1e-6
    assert (out.double() - exact).abs().max() < 5e-6


@pytest.mark.parametrize(("rows", "C", "N"), [(70, 32, 48), (33, 96, 384)])
@pytest.mark.parametrize("half", HALVES, ids=str)
def test_linear_gelu_rounds_half_precision_once(rows: int, C: int, N: int, half: torch.dtype) -> None:
    x, weight, bias = (part.to(half) for part in (2 * draw(rows, C), draw(N, C, seed=1) / C**0.5, draw(N, seed=2)))
    out = ops.linear_gelu(x, weight, bias)
    assert out.dtype == half
    assert_rounded_once(out, F.gelu(F.linear(x.double(), weight.double(), bias.double())))


def test_linear_gelu_far_from_zero() -> None:
    x = torch.tensor([-1e6, -40.0, -6.0, -3.0, -1e-3, 0.0, 1e-3, 3.0, 40.0, 1e6], device=ops.DEVICE)[:, None]
    out = ops.linear_gelu(F.pad(x, (0, 31)), torch.eye(32, device=ops.DEVICE)[:1], torch.zeros(1, device=ops.DEVICE))
    assert ((out.double() - F.gelu(x.double())).abs() <= 2e-7 * x.abs()).all()


def test_weights_that_are_parts_of_others() -> None:
    x, weight, bias = draw(5, 32), draw(96, 32, seed=1)[::2], draw(96, seed=2)[::2]
    assert error(ops.linear_gelu(x, weight, bias), F.gelu(F.linear(x.double(), weight.double(), bias.double()))) < 1e-6
    scale, shift = weight[:, 0][:32], bias[:32]
    exact = F.layer_norm(x.double(), (32,), scale.double(), shift.double(), 1e-5)
    assert error(ops.layer_norm(x, scale, shift, 1e-5), exact) < 1e-6


def test_an_mlp_uses_it_without_gradients_only() -> None:
    mlp = Mlp(32, 64).to(ops.DEVICE)
    x = draw(2, 3, 32)
    with torch.no_grad(), autocast():
        assert joined(mlp, x)
        out = mlp(x)
    with autocast():
        assert not joined(mlp, x)
    with torch.no_grad():
        assert not joined(mlp, x), "float32 is left to PyTorch"
        assert error(out, mlp(x).double()) < 0.02


def test_layers_that_are_watched_or_replaced_are_called() -> None:
    mlp = Mlp(32, 64).to(ops.DEVICE)
    x = draw(2, 32)
    seen: list[torch.Size] = []
    handle = mlp.act.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    with torch.no_grad(), autocast():
        mlp(x)
        assert seen == [(2, 64)]
        handle.remove()
        mlp.fc1 = nn.Sequential(mlp.fc1)  # type: ignore[assignment] # as adapters do
        assert not joined(mlp, x)
        other = Mlp(32, 64).to(ops.DEVICE)
        other.act = nn.GELU(approximate="tanh")
        assert not joined(other, x)


def test_what_does_not_fit_a_layer_is_refused_by_pytorch() -> None:
    x, three = draw(2, 32), nn.Parameter(torch.zeros(3, device=ops.DEVICE))
    norm, mlp = LayerNorm(32).to(ops.DEVICE), Mlp(32, 64).to(ops.DEVICE)
    assert ops.norms(x, norm)
    norm.bias.data = torch.zeros(3, device=ops.DEVICE)
    mlp.fc1.bias = three
    for layer in (norm, mlp, LayerNorm(64).to(ops.DEVICE), Mlp(64, 128).to(ops.DEVICE)):
        with torch.no_grad(), autocast(), pytest.raises(RuntimeError):
            layer(x)
    norm = LayerNorm(32, bias=False).to(ops.DEVICE)
    assert torch.equal(norm(x), nn.LayerNorm.forward(norm, x))


@pytest.mark.parametrize("grad", [False, True])
def test_a_block_agrees_with_pytorchs_layers(grad: bool) -> None:
    torch.manual_seed(0)
    block = IwinBlock(32, num_heads=1, window_size=(3, 3)).to(ops.DEVICE)
    x = draw(1, 2, 6, 6, 32)
    with torch.set_grad_enabled(grad):
        exact = block(x)
        with autocast():
            out = block(x)
    assert error(out.detach(), exact.detach().double()) < 0.02
    if grad:
        weights = list(block.parameters())
        right = torch.autograd.grad(exact.square().sum(), weights)
        for value, expected in zip(torch.autograd.grad(out.square().sum(), weights), right, strict=True):
            assert error(value, expected.double()) < 0.05
