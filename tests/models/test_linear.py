"""Linear layers through oneDNN, and MLPs of them, against PyTorch's."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from iwin.models.iwin import IwinBlock, Mlp
from iwin.models.native import mlp as mlps
from iwin.models.native import tokens
from iwin.models.native.common import infers
from iwin.models.native.linear import Linear
from iwin.native import library
from tests.models.precisions import assert_differentiates, pairs

needs_kernels = pytest.mark.skipif(library(tokens.SOURCE) is None, reason="the kernels cannot be compiled here")
PAIRS = pairs(tokens.SOURCE, "gelu")

# ------------------------------------------------------------------------------------------- linear layers


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "mixed"), [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)])
def test_gradients_of_linear_layers_are_those_of_their_definition(dtype: torch.dtype, mixed: bool, bias: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(24, 40, bias=bias).to(dtype)
    x = torch.randn(2, 3, 5, 24).transpose(1, 2).to(dtype).requires_grad_()
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


def test_gradients_of_gradients_are_pytorchs() -> None:
    torch.manual_seed(0)
    layer, x = Linear(8, 16), torch.randn(3, 8, requires_grad=True)

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
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("mixed", [False, True])
def test_linear_layers_without_gradients_equal_pytorchs(
    bias: bool, dtype: torch.dtype, tolerance: float, mixed: bool
) -> None:
    torch.manual_seed(0)
    layer = Linear(24, 40, bias=bias)
    x = torch.randn(2, 3, 24)
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
