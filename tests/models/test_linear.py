"""Linear layers by kernels and through oneDNN, and MLPs of them, against float64 and PyTorch's."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from iwin.models.iwin import IwinBlock, Mlp
from iwin.models.native import linear as linears
from iwin.models.native import mlp as mlps
from iwin.models.native import tokens
from iwin.models.native.common import infers
from iwin.models.native.linear import Linear
from iwin.native import library
from tests.models.precisions import assert_differentiates, error, pairs

SIZES = {"kernels": (48, 80), "oneDNN": (24, 40)}
"""Numbers in and out of layers that the kernels take, where they can be compiled, and of those that they do not."""

needs_kernels = pytest.mark.skipif(library(tokens.SOURCE) is None, reason="the kernels cannot be compiled here")
PAIRS = pairs(tokens.SOURCE, "gelu")
KERNEL_PAIRS = pairs(linears.SOURCE, "weight_gradient")

# ------------------------------------------------------------------------------------------- linear layers


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("by", SIZES)
@pytest.mark.parametrize(("dtype", "mixed"), [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)])
def test_gradients_of_linear_layers_are_those_of_their_definition(
    dtype: torch.dtype, mixed: bool, by: str, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = Linear(*SIZES[by], bias=bias).to(dtype)
    x = torch.randn(2, 3, 5, layer.in_features).transpose(1, 2).to(dtype).requires_grad_()
    made, *_ = assert_differentiates(
        lambda: layer(x),
        F.linear,
        [x, *layer.parameters()],
        mixed=mixed,
        tolerances={torch.float32: 2e-6, torch.bfloat16: 5e-3},
    )
    assert type(made.grad_fn).__name__ == "_LinearBackward"


def test_only_the_gradients_that_are_asked_for_are_computed() -> None:
    layer, x = Linear(8, 8).requires_grad_(False), torch.randn(2, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is layer.bias.grad is None
    assert not layer(x.detach()).requires_grad
    layer.weight.requires_grad_()
    x.grad = None
    layer(x.detach()).sum().backward()
    assert layer.weight.grad is not None
    assert x.grad is None


@pytest.mark.parametrize("by", SIZES)
def test_gradients_of_gradients_are_pytorchs(by: str) -> None:
    torch.manual_seed(0)
    layer = Linear(*SIZES[by])
    x = torch.randn(3, layer.in_features, requires_grad=True)

    def second(forward: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(forward(x).square().sum(), [x, layer.weight], create_graph=True)
        return torch.autograd.grad(first[0].square().sum() + first[1].square().sum(), [x, layer.weight])

    plain = second(lambda x: F.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(second(layer), plain, rtol=1e-4, atol=1e-4)


def test_who_counts_operators_sees_them() -> None:
    mlp, x = Mlp(32, 64), torch.randn(5, 32, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        mlp(x).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 2 * 5 * 32 * 64
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        mlp(x)
    assert counter.get_total_flops() == 2 * 2 * 5 * 32 * 64


@pytest.mark.parametrize("grad", [True, False])
def test_weights_that_are_more_than_their_data_decide_for_themselves(
    grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quantized(Tensor):
        pass

    mlp, x = Mlp(32, 64), torch.randn(5, 32)
    expected = mlp(x)
    for layer in (mlp.fc1, mlp.fc2):
        layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Quantized))
    monkeypatch.delattr("iwin.models.native.linear.multiply")
    monkeypatch.delattr("iwin.models.native.mlp.multiply")
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(mlp(x).as_subclass(Tensor), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("by", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("mixed", [False, True])
def test_linear_layers_without_gradients_equal_pytorchs(
    bias: bool, by: str, dtype: torch.dtype, tolerance: float, mixed: bool
) -> None:
    torch.manual_seed(0)
    layer = Linear(*SIZES[by], bias=bias)
    x = torch.randn(2, 3, layer.in_features)
    expected = F.linear(x, layer.weight, layer.bias)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mixed and dtype == torch.bfloat16):
        if not mixed:
            layer, x = layer.to(dtype), x.to(dtype)
        result = layer(x)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), expected, rtol=tolerance, atol=tolerance)


def test_linear_layers_keep_their_hooks_and_their_class() -> None:
    layer = Linear(8, 8)
    seen = []
    layer.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        layer(torch.zeros(1, 8))
    assert seen == [1]
    assert isinstance(layer, nn.Linear)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_block_gives_the_same_in_slices_and_leaves_its_maps_alone(
    more: int, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    count = 1024 * torch.get_num_threads()
    block = IwinBlock(32, num_heads=1, window_size=(1, 1)).eval()
    x = torch.randn(2, 1, 1, count + more, 32)
    given, whole, seen = x.clone(), block(x), []
    forward = Mlp.forward

    def record(mlp: Mlp, x: Tensor) -> Tensor:
        seen.append(len(x))
        return forward(mlp, x)

    monkeypatch.setattr(Mlp, "forward", record)
    if not kernels:
        monkeypatch.setattr(tokens, "norms", lambda *_: False)
    assert not infers(x)
    with torch.no_grad():
        assert infers(x)
        torch.testing.assert_close(block(x), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, given)
    assert seen == [count, count] + [2 * more] * (more > 0) if more >= 0 else [count, count - 2]


@pytest.mark.parametrize("name", ["drop_path", "norm2", "mlp", "mlp.fc1", "mlp.act"])
def test_who_hooks_into_a_layer_sees_whole_maps(name: str) -> None:
    block, x = IwinBlock(32, num_heads=1).eval(), torch.randn(1, 2, 64, 64, 32)
    seen: list[torch.Size] = []
    block.get_submodule(name).register_forward_hook(lambda _module, given, _made: seen.append(given[0].shape))
    with torch.no_grad():
        assert infers(x)
        block(x)
    assert {shape[:-1] for shape in seen} == {x.shape[:-1]}


def test_stochastic_depth_without_gradients_leaves_out_whole_samples() -> None:
    torch.manual_seed(0)
    block = IwinBlock(32, num_heads=1, drop_path=0.5).train()
    x = torch.randn(64, 1, 1, 2, 32)
    with torch.no_grad():
        changed = (block(x) != x).flatten(1)
    assert ((changed.sum(1) == 0) | changed.all(1)).all()
    assert 0 < changed.all(1).sum() < 64


# ------------------------------------------------------------------------------------------- kernels

KERNELS = {torch.float32: 2e-6, torch.bfloat16: 5e-3}
"""Tolerances of what comes in a precision; sums of bf16 products are in fp32, and so is a weight's gradient."""


@pytest.mark.parametrize(("dtype", "mixed"), KERNEL_PAIRS)
@pytest.mark.parametrize(("ins", "outs"), [(16, 16), (48, 32), (80, 48), (96, 400), (400, 112)])
@pytest.mark.parametrize("rows", [*range(1, 10), 100, 1025, 2100])
def test_kernels_multiply_any_number_of_rows_and_columns(
    dtype: torch.dtype,
    mixed: bool,
    ins: int,
    outs: int,
    rows: int,
    any_threads: Callable[[Callable[[], list[Tensor]]], None],
) -> None:
    torch.manual_seed(0)
    kind = torch.bfloat16 if mixed else dtype
    x, grad = torch.randn(rows, ins).to(kind), torch.randn(rows, outs).to(kind)
    weight, bias = torch.randn(outs, ins).to(dtype), torch.randn(outs).to(dtype)

    def results() -> list[Tensor]:
        made, of_x = linears.multiply(x, weight, bias), linears.multiply(grad, weight, turned=True)
        return [made, of_x, *linears.gradients(x, grad)]

    with torch.no_grad():
        found = results()
        any_threads(results)
        alone = linears.multiply(x[-1:], weight, bias)
    assert torch.equal(alone, found[0][-1:]), "a row's result depends on those beside it"
    wide_x, wide_grad, rounded = x.double(), grad.double(), weight.to(kind).double()
    exact = [F.linear(wide_x, rounded, bias.double()), wide_grad @ rounded, wide_grad.t() @ wide_x, wide_grad.sum(0)]
    for value, right, precision in zip(found, exact, [kind, kind, torch.float32, torch.float32], strict=True):
        assert value.dtype == precision
        assert error(value, right) < KERNELS[precision]


@pytest.mark.parametrize(("dtype", "mixed"), KERNEL_PAIRS)
def test_kernels_read_no_number_beyond_a_row_and_lose_none(dtype: torch.dtype, mixed: bool) -> None:
    kind = torch.bfloat16 if mixed else dtype
    weight = torch.ones(48, 16, dtype=dtype)
    for place in range(3):
        x, grad = torch.ones(3, 16, dtype=kind), torch.ones(3, 48, dtype=kind)
        x[place, 15], grad[place, 47] = math.nan, math.inf
        with torch.no_grad():
            made, (of_weight, of_bias) = linears.multiply(x, weight), linears.gradients(x, grad)
            of_x = linears.multiply(grad, weight, turned=True)
        assert made.isnan().all(1).tolist() == made.isnan().any(1).tolist() == [row == place for row in range(3)]
        assert of_x.isinf().all(1).tolist() == of_x.isinf().any(1).tolist() == [row == place for row in range(3)]
        assert of_weight.isfinite().sum() == 47 * 15
        assert of_bias.isinf().tolist() == [column == 47 for column in range(48)]


@pytest.mark.parametrize(("dtype", "mixed"), KERNEL_PAIRS)
def test_what_has_no_rows_gives_none_and_a_gradient_of_zero(dtype: torch.dtype, mixed: bool) -> None:
    kind = torch.bfloat16 if mixed else dtype
    x, grad, weight = torch.ones(0, 16, dtype=kind), torch.ones(0, 96, dtype=kind), torch.ones(96, 16, dtype=dtype)
    with torch.no_grad():
        assert linears.multiply(x, weight).shape == (0, 96)
        assert linears.multiply(grad, weight, turned=True).shape == (0, 16)
        of_weight, of_bias = linears.gradients(x, grad)
    assert not of_weight.any()
    assert not of_bias.any()


@needs_kernels
def test_kernels_take_the_layers_that_are_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(linears, "call", lambda _source, kernel, *_: called.append(kernel))
    for (ins, outs), kernels in zip(SIZES.values(), (["linear_fp32_fp32"], []), strict=True):
        with torch.no_grad():
            Linear(ins, outs)(torch.randn(2, ins))
        assert called == kernels
        called.clear()


# ------------------------------------------------------------------------------------------- MLPs in training


@pytest.mark.parametrize(("dtype", "mixed"), PAIRS)
def test_gradients_of_a_mlp_are_those_of_its_definition(dtype: torch.dtype, mixed: bool) -> None:
    torch.manual_seed(0)
    mlp, x = Mlp(32, 96).to(dtype), torch.randn(2, 3, 50, 32).to(dtype).requires_grad_()
    for parameter in mlp.parameters():
        nn.init.normal_(parameter, std=0.5)
    made, *_ = assert_differentiates(
        lambda: mlp(x),
        lambda x, *weights: F.linear(F.gelu(F.linear(x, *weights[:2])), *weights[2:]),
        [x, *mlp.parameters()],
        mixed=mixed,
        tolerances={torch.float32: 2e-6, torch.bfloat16: 1e-2},
    )
    assert type(made.grad_fn).__name__ == "_MlpBackward"


@needs_kernels
def test_a_mlp_keeps_its_hidden_layer_but_once() -> None:
    mlp, x, kept = Mlp(32, 128), torch.randn(10, 32, requires_grad=True), []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        made = mlp(x)
    assert [tuple(tensor.shape) for tensor in kept] == [(10, 32), (128, 32), (10, 128), (32, 128)]
    first = torch.autograd.grad(made.sum(), x, retain_graph=True)
    assert torch.equal(*first, *torch.autograd.grad(made.sum(), x)), "what is kept stays as it is"


@needs_kernels
@pytest.mark.parametrize("name", ["fc1", "act", "drop", "fc2"])
def test_who_hooks_into_a_layer_of_a_mlp_is_called(name: str) -> None:
    torch.manual_seed(0)
    mlp, x, seen = Mlp(32, 64), torch.randn(5, 32, requires_grad=True), []
    fast = mlp(x)
    mlp.get_submodule(name).register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(mlp(x), fast, rtol=1e-5, atol=1e-6)
    assert seen


@needs_kernels
def test_a_mlp_of_other_layers_runs_them() -> None:
    class Doubled(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    def takes(x: Tensor, mlp: Mlp) -> bool:
        return mlps.takes(x, mlp.fc1, mlp.act, mlp.drop, mlp.fc2)

    def changed(name: str, layer: nn.Module) -> Mlp:
        mlp = Mlp(32, 64)
        setattr(mlp, name, layer)
        return mlp

    x = torch.randn(5, 32)
    assert takes(x, Mlp(32, 64))
    assert takes(x, changed("fc2", Linear(64, 32, bias=False)))
    assert takes(x, Mlp(32, 64, drop=0.5).eval())
    assert not takes(x, Mlp(32, 64, drop=0.5))
    assert not takes(x, Mlp(32, 48))
    assert not takes(x.double(), Mlp(32, 64))
    assert not takes(x, changed("act", nn.GELU(approximate="tanh")))
    assert not takes(x, changed("act", nn.ReLU()))
    assert not takes(x, changed("fc1", Doubled(32, 64)))
    assert not takes(x, changed("fc2", nn.Linear(64, 32)))
    with torch.no_grad():
        assert not takes(x, Mlp(32, 64))
    bare = changed("fc1", Linear(32, 64, bias=False))
    expected = bare.fc2(F.gelu(bare.fc1(x)))
    torch.testing.assert_close(bare(x), expected, rtol=1e-5, atol=1e-6)
    bare(x).sum().backward()
    assert bare.fc1.weight.grad is not None
