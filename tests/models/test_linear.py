"""Linear layers by kernels and through oneDNN, and MLPs of them, against float64 and PyTorch's."""

import math
from collections.abc import Callable
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from iwin.models.block import IwinBlock, Mlp
from iwin.models.iwin import IwinTransformer
from iwin.models.native import linear as linears
from iwin.models.native import mlp as mlps
from iwin.models.native import tokens
from iwin.models.native.common import NAMES, call, infers
from iwin.models.native.linear import Linear
from tests.models.precisions import assert_differentiates, error, needs_bf16, needs_kernels, pairs

SIZES = {"kernels": (48, 80), "oneDNN": (20, 36)}
"""Numbers in and out of layers that the kernels take, where they can be compiled, and of those that they do not."""

PAIRS = pairs("gelu")
KERNEL_PAIRS = pairs("weight_gradient")

# ------------------------------------------------------------------------------------------- linear layers


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("by", SIZES)
@pytest.mark.parametrize(
    ("dtype", "mixed"),
    [
        (torch.float32, False),
        pytest.param(torch.float32, True, marks=needs_bf16),
        pytest.param(torch.bfloat16, False, marks=needs_bf16),
    ],
)
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


@pytest.mark.parametrize("by", SIZES)
@pytest.mark.parametrize("wanted", [("x",), ("weight",), ("bias",), ("x", "bias"), ("weight", "bias")])
def test_only_the_gradients_that_are_asked_for_are_computed(
    wanted: tuple[str, ...], by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Linear(*SIZES[by])
    tensors = {"x": torch.randn(2, layer.in_features), "weight": layer.weight, "bias": layer.bias}
    for name, tensor in tensors.items():
        tensor.requires_grad_(name in wanted)
    made = layer(tensors["x"])
    spies = {"x": Mock(wraps=linears.multiply), "weight": Mock(wraps=linears.gradients)}
    monkeypatch.setattr(linears, "multiply", spies["x"])
    monkeypatch.setattr(linears, "gradients", spies["weight"])
    made.sum().backward()
    assert [spy.called for spy in spies.values()] == [name in wanted for name in spies]
    for name, tensor in tensors.items():
        assert (tensor.grad is not None) == (name in wanted)
    if layer.bias.grad is not None:
        assert torch.equal(layer.bias.grad, torch.full_like(layer.bias, 2))


@pytest.mark.parametrize("grad", [False, True])
def test_what_does_not_fit_a_layer_is_refused_by_pytorch(grad: bool) -> None:
    model = IwinTransformer(embed_dim=32, depths=(1,), num_heads=(1,), num_frames=4)
    for layer, x in (
        (Linear(48, 80), torch.randn(2, 64)),
        (Linear(48, 80, device="meta"), torch.randn(2, 48)),
        (Mlp(32, 64), torch.randn(2, 64)),
        (model, torch.rand(1, 1, 4, 32, 32)),
        (model, torch.rand(1, 4, 4, 32, 32)),
    ):
        with torch.set_grad_enabled(grad), pytest.raises(RuntimeError):
            layer(x)


def test_layers_without_numbers_give_what_pytorchs_give() -> None:
    for ins, outs in ((0, 16), (16, 0)):
        given = [torch.ones(size, requires_grad=True) for size in ((2, ins), (outs, ins), (outs,))]
        made, expected = linears.linear(*given), F.linear(*given)
        assert torch.equal(made, expected)
        for found, right in zip(*(torch.autograd.grad(of.sum(), given) for of in (made, expected)), strict=True):
            assert torch.equal(found, right)


@pytest.mark.parametrize("other", [torch.bfloat16, torch.float64])
def test_the_default_precision_of_new_tensors_does_not_matter(other: torch.dtype) -> None:
    mlp, x = IwinBlock(32, num_heads=1), torch.randn(1, 2, 7, 7, 32)
    expected = [*torch.autograd.grad(mlp(x).sum(), list(mlp.parameters()))]
    with torch.no_grad():
        made = mlp.eval()(x)
        torch.set_default_dtype(other)
        try:
            found = mlp(x)
            with torch.enable_grad():
                gradients = torch.autograd.grad(mlp.train()(x).sum(), list(mlp.parameters()))
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(found, made)
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("by", SIZES)
def test_gradients_of_gradients_are_pytorchs(by: str, mixed: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(*SIZES[by])
    x = torch.randn(3, layer.in_features, requires_grad=True)

    def second(forward: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            made = forward(x)
        first = torch.autograd.grad(made.float().square().sum(), [x, layer.weight], create_graph=True)
        return torch.autograd.grad(first[0].square().sum() + first[1].square().sum(), [x, layer.weight])

    plain = second(lambda x: F.linear(x, layer.weight, layer.bias))
    for found, expected in zip(second(layer), plain, strict=True):
        assert error(found, expected) < (1e-2 if mixed else 1e-5)


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

    monkeypatch.setattr("iwin.models.native.block.takes", lambda *_: False)
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

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 3e-3}
"""Tolerances of what comes in a precision; sums of bf16 products are in fp32, and so is a weight's gradient."""


@pytest.mark.parametrize(("dtype", "mixed"), KERNEL_PAIRS)
@pytest.mark.parametrize(
    ("ins", "outs"), [(16, 16), (48, 32), (80, 48), (96, 400), (400, 112), (8, 8), (24, 72), (104, 24)]
)
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
        assert error(value, right) < TOLERANCES[precision]


@pytest.mark.parametrize(("dtype", "mixed"), KERNEL_PAIRS)
@pytest.mark.parametrize(
    ("rows", "ins", "outs"), [(3, 48, 16), (13, 16, 80), (1027, 80, 48), (5, 8, 24), (1027, 24, 72)]
)
def test_kernels_stay_within_their_tensors(
    dtype: torch.dtype, mixed: bool, rows: int, ins: int, outs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, around = torch.bfloat16 if mixed else dtype, []

    def between(tensor: Tensor) -> Tensor:
        buffer = torch.full((tensor.numel() + 128,), math.nan, dtype=tensor.dtype)
        around.append((buffer, tensor.numel()))
        return buffer[64:-64].view(tensor.shape).copy_(tensor)

    x, grad, weight, bias = map(
        between,
        (
            torch.ones(rows, ins).to(kind),
            torch.ones(rows, outs).to(kind),
            torch.ones(outs, ins).to(dtype),
            torch.ones(outs),
        ),
    )
    new_empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda *a, **b: between(new_empty(*a, **b)))
    with torch.no_grad():
        made, (of_weight, of_bias) = linears.multiply(x, weight, bias), linears.gradients(x, grad)
        of_x = linears.multiply(grad, weight, turned=True)
    for value, expected in ((made, ins + 1), (of_x, outs), (of_weight, rows), (of_bias, rows)):
        assert torch.equal(value, torch.full_like(value, expected))
    assert len(around) == 8
    for buffer, numbers in around:
        assert buffer.isnan().sum() == len(buffer) - numbers == 128


@pytest.mark.parametrize(("dtype", "mixed"), KERNEL_PAIRS)
def test_kernels_lose_no_number_that_is_none(dtype: torch.dtype, mixed: bool) -> None:
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
@pytest.mark.parametrize(("ins", "outs"), [(16, 96), (96, 16)])
def test_what_has_no_rows_gives_none_and_a_gradient_of_zero(
    dtype: torch.dtype, mixed: bool, ins: int, outs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = torch.bfloat16 if mixed else dtype
    x, grad, weight = (
        torch.ones(0, ins, dtype=kind),
        torch.ones(0, outs, dtype=kind),
        torch.ones(outs, ins, dtype=dtype),
    )
    new_empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda *a, **b: new_empty(*a, **b).fill_(math.nan))
    with torch.no_grad():
        assert linears.multiply(x, weight).shape == (0, outs)
        assert linears.multiply(grad, weight, turned=True).shape == (0, ins)
        of_weight, of_bias = linears.gradients(x, grad)
    assert torch.equal(of_weight, torch.zeros(outs, ins))
    assert torch.equal(of_bias, torch.zeros(outs))


@pytest.mark.parametrize(("dtype", "mixed"), KERNEL_PAIRS)
def test_layers_of_their_sizes_run_the_kernels_and_keep_no_copy_of_weights(
    dtype: torch.dtype, mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Mock(wraps=call)
    monkeypatch.setattr(linears, "call", spy)
    kind = NAMES[torch.bfloat16 if mixed else dtype]
    pair = f"{NAMES[dtype]}_{kind}"
    for by, kernels in (
        ("kernels", [f"linear_{pair}", f"linear_{pair}", f"weight_gradient_{kind}"]),
        ("oneDNN", []),
    ):
        kept: list[Tensor] = []

        def keep(tensor: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(tensor)
            return tensor

        layer = Linear(*SIZES[by]).to(dtype)
        x = torch.randn(2, layer.in_features, dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed), saved_tensors_hooks(keep, lambda tensor: tensor):
            made = layer(x)
        assert any(tensor.data_ptr() == layer.weight.data_ptr() for tensor in kept)
        made.sum().backward()
        assert [called.args[0] for called in spy.call_args_list] == kernels
        spy.reset_mock()


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
    assert not takes(x, Mlp(32, 44))
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
