"""Blocks in one call of their kernels against their definition in float64, and against their layers one by one."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from iwin.models.block import IwinBlock, WindowAttention
from iwin.models.native import block as whole
from iwin.models.native import downsample, embed
from iwin.models.native.common import NAMES, call
from iwin.models.zoo import VIDEO_MODELS, build_named
from tests.models.precisions import error, needs_kernels, pairs

pytestmark = needs_kernels
PRECISIONS = pairs("weight_gradient")

SHAPES: dict[str, tuple[int, ...]] = {
    "whole windows": (2, 2, 14, 7),
    "windows that reach beyond the map": (2, 3, 10, 15),
    "a map smaller than a window": (1, 2, 3, 4),
    "more tokens than a slice has": (2, 5, 16, 26),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that blocks called, in order."""
    names: list[str] = []

    def record(name: str, *arguments: Any) -> None:
        names.append(name)
        call(name, *arguments)

    for module in (whole, embed, downsample):
        monkeypatch.setattr(module, "call", record)
    return names


def block_of(dim: int = 64, **settings: Any) -> IwinBlock:
    """A block with weights of a size at which every layer counts."""
    torch.manual_seed(0)
    block = IwinBlock(dim, num_heads=2, **settings)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return block


def results(block: IwinBlock, x: Tensor, grad: Tensor, *, mixed: bool = False) -> list[Tensor]:
    """What a block makes of x, and the gradients of x and of its parameters."""
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        made = block(x)
    return [made.detach(), *torch.autograd.grad(made, [x, *block.parameters()], grad.to(made.dtype))]


# ------------------------------------------------------------------------------------------- what it computes


@pytest.mark.parametrize("name", ["iwin_nano", "iwin_tiny"])
def test_a_model_goes_through_the_kernels_from_end_to_end(name: str, calls: list[str]) -> None:
    build_named(name, num_frames=2)(torch.randn(1, 3, 2, 32, 32)).sum().backward()
    kernels = ["embed"]
    for depth in VIDEO_MODELS[name].depths:
        kernels += ["downsample"] * (len(kernels) > 1) + ["block"] * depth
    kernels += [f"{kernel}_backward" for kernel in reversed(kernels)]
    assert [call.partition("_fp32")[0] for call in calls] == kernels


@pytest.mark.parametrize(("dtype", "mixed"), PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dwconv": False},
        {"qkv_bias": False},
        {"mlp_ratio": 0.5, "qk_scale": 0.4},
        {"dim": 48},
        {"dim": 24, "mlp_ratio": 3.0},
        {"dim": 8},
    ],
    ids=str,
)
def test_a_block_equals_its_definition_forward_and_backward(
    settings: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, mixed: bool, calls: list[str]
) -> None:
    block, dim = block_of(**settings).to(dtype), settings.get("dim", 64)
    x, grad = torch.randn(*shape, dim).to(dtype), torch.randn(*shape, dim)
    found = results(block, x, grad, mixed=mixed)
    kernel = f"{NAMES[dtype]}_{'bf16' if mixed else NAMES[dtype]}_{NAMES[dtype]}"
    assert calls == [f"block_{kernel}", f"block_backward_{kernel}"]
    exact = results(copy.deepcopy(block).double(), x.double(), grad.to(dtype).double())
    tolerance = 1e-2 if mixed or dtype == torch.bfloat16 else 2e-6
    for value, right, given in zip(found, exact, [x, x, *block.parameters()], strict=True):
        assert error(value, right) < tolerance
        assert value.dtype == given.dtype
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert torch.equal(block(x), found[0]), "without gradients"


@pytest.mark.parametrize(("dtype", "mixed"), PRECISIONS)
def test_each_result_is_the_same_whatever_stands_beside_it(dtype: torch.dtype, mixed: bool) -> None:
    block = block_of().to(dtype)
    x = torch.randn(3, 2, 9, 15, 64).to(dtype)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert torch.equal(block(x), torch.cat([block(part) for part in x.split(1)]))


@pytest.mark.parametrize(("batch", "side"), [(5, 70), (3, 90)])
def test_samples_that_go_in_parts_give_the_same(batch: int, side: int) -> None:
    block, x = block_of(), torch.randn(batch, 1, side, side, 64)
    together = block(x)
    with torch.no_grad():
        assert torch.equal(block(x), together)


def test_any_number_of_threads_gives_the_same(any_threads: Callable[[Callable[[], list[Tensor]]], None]) -> None:
    block, shape = block_of(), SHAPES["more tokens than a slice has"]
    x, grad = torch.randn(*shape, 64), torch.randn(*shape, 64)
    any_threads(lambda: results(block, x, grad))


@pytest.mark.parametrize(("dtype", "mixed"), PRECISIONS)
@pytest.mark.parametrize("shape", [(1, 6, 14, 14, 64), (2, 11, 13, 4, 64), (1, 6, 14, 14, 24)], ids=str)
def test_windows_on_threads_of_their_own_give_the_same(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    mixed: bool,
    any_threads: Callable[[Callable[[], list[Tensor]]], None],
) -> None:
    block, x = block_of(shape[-1]).to(dtype), torch.randn(shape).to(dtype)

    def made() -> list[Tensor]:  # 4 windows are too few for 3 threads, which then work at all of them together
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            return [block(x)]

    any_threads(made)


def test_maps_and_gradients_of_any_strides_are_taken(calls: list[str]) -> None:
    block, x, grad = block_of(), torch.randn(64, 2, 9, 8, 2), torch.randn(64, 2, 9, 8, 2)
    strided = results(block, x.movedim(0, -1), grad.movedim(0, -1))
    plain = results(block, x.movedim(0, -1).contiguous(), grad.movedim(0, -1).contiguous())
    assert all(torch.equal(a, b) for a, b in zip(strided, plain, strict=True))
    assert len(calls) == 4


def test_what_is_not_a_number_is_passed_on() -> None:
    x = torch.randn(2, 1, 7, 7, 64)
    x[1, 0, 3, 3, 40] = torch.nan
    made = block_of()(x)
    assert made[0].isfinite().all()
    assert made[1].isnan().all()


# ------------------------------------------------------------------------------------------- stochastic depth


@pytest.mark.parametrize(("dtype", "mixed"), PRECISIONS)
@pytest.mark.parametrize("shape", [(5, 1, 3, 4), (3, 5, 16, 16)], ids=str)
def test_stochastic_depth_leaves_out_what_it_does_layer_by_layer(
    shape: tuple[int, ...], dtype: torch.dtype, mixed: bool, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    block = block_of(drop_path=0.4).to(dtype).train()
    x, grad = torch.randn(*shape, 64).to(dtype), torch.randn(*shape, 64)

    fast = seeded(block, x, grad, mixed=mixed)
    torch.manual_seed(3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert torch.equal(block(x), fast[0]), "without gradients"
    assert len(calls) == 3
    monkeypatch.setattr(whole, "takes", lambda *_: False)
    plain = seeded(block, x, grad, mixed=mixed)
    assert len(calls) == 3
    for found, expected in zip(fast, plain, strict=True):
        assert error(found, expected.double()) < (2e-2 if mixed or dtype == torch.bfloat16 else 1e-6)


def seeded(block: IwinBlock, x: Tensor, grad: Tensor, *, mixed: bool = False) -> list[Tensor]:
    torch.manual_seed(3)
    return results(block, x, grad, mixed=mixed)


def test_checkpointing_draws_the_same_again() -> None:
    block = block_of(drop_path=0.5).train()
    x, grad = torch.randn(6, 1, 5, 5, 64, requires_grad=True), torch.randn(6, 1, 5, 5, 64)
    expected = seeded(block, x, grad)
    torch.manual_seed(3)
    made = checkpoint(block, x, use_reentrant=False)
    found = [made, *torch.autograd.grad(made, [x, *block.parameters()], grad)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


# ------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("part", ["bias", "weight", "norm", "attn", "mlp.fc2", "dwconv", "x"])
def test_who_wants_few_gradients_gets_those(part: str) -> None:
    block = block_of()
    shape = SHAPES["windows that reach beyond the map"]
    x, grad = torch.randn(*shape, 64), torch.randn(*shape, 64)
    names = ["x", *(name for name, _ in block.named_parameters())]
    expected = dict(zip(names, results(block, x, grad)[1:], strict=True))
    for name, parameter in block.named_parameters():
        parameter.requires_grad_(part in name)
    x.requires_grad_(part == "x")
    block(x).backward(grad)
    wanted = {name for name in names if (name == "x" if part == "x" else part in name)}
    assert wanted
    found = {"x": x.grad} | {name: parameter.grad for name, parameter in block.named_parameters()}
    for name, value in found.items():
        assert (value is not None) == (name in wanted)
        assert value is None or torch.equal(value, expected[name])


def test_a_backward_pass_can_be_repeated_but_not_differentiated() -> None:
    block, x = block_of(), torch.randn(1, 1, 7, 7, 64, requires_grad=True)
    made = block(x).square().sum()
    first = torch.autograd.grad(made, [x, *block.parameters()], retain_graph=True)
    second = torch.autograd.grad(made, [x, *block.parameters()], create_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second[0].sum().backward()


def test_weights_that_change_before_the_backward_pass_are_an_error() -> None:
    block, x = block_of(), torch.randn(1, 1, 7, 7, 64)
    made = block(x)
    with torch.no_grad():
        block.mlp.fc1.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        made.sum().backward()


@pytest.mark.parametrize("mixed", [False, pytest.param(True, marks=PRECISIONS[1].marks)])
def test_ten_activations_are_kept(mixed: bool) -> None:
    block, x, kept = block_of(), torch.randn(1, 4, 14, 14, 64), dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        block(x.requires_grad_())
    parts = 6 if mixed else 10  # x and the sum are in fp32, q, k, v, what attention finds, and the hidden layer in bf16
    numbers = parts * x.numel() + 2 * 2 * x.numel() // 64 + 2 * x.numel() // 32
    assert sum(kept.values()) == 4 * numbers


# ------------------------------------------------------------------------------------------- when it runs


def nothing(*_: object) -> None:
    """A hook."""


class OtherAttention(WindowAttention):
    """A layer that somebody put in."""


LAYERS = [name for name, _ in block_of().named_modules() if name]

CHANGES: dict[str, Callable[[IwinBlock], object]] = {
    "another block": lambda block: setattr(block, "__class__", type("Other", (IwinBlock,), {})),
    "another attention": lambda block: block.set_submodule("attn", OtherAttention(64, num_heads=2)),
    "another linear layer": lambda block: block.set_submodule("attn.qkv", nn.Linear(64, 192)),
    "another norm": lambda block: block.set_submodule("norm1", nn.LayerNorm(64)),
    "another activation": lambda block: block.set_submodule("mlp.act", nn.SiLU()),
    "another GELU": lambda block: block.set_submodule("mlp.act", nn.GELU("tanh")),
    "a larger convolution": lambda block: block.set_submodule(
        "dwconv.depthwise", nn.Conv2d(64, 64, 5, padding=2, groups=64)
    ),
    "a norm without bias": lambda block: block.norm2.register_parameter("bias", None),
    "a layer in another precision": lambda block: block.attn.proj.bfloat16(),
    "a forward of a layer's own": lambda block: setattr(block.mlp.act, "forward", torch.relu),
    "a backward hook": lambda block: block.norm2.register_full_backward_hook(nothing),
    "another stochastic depth": lambda block: block.set_submodule("drop_path", nn.Identity()),
    "another way to mix tokens": lambda block: setattr(block, "mix_tokens", torch.zeros_like),
    "heads of more channels": lambda block: setattr(block.attn, "num_heads", 1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_block_that_is_not_what_it_was_made_as_goes_layer_by_layer(
    change: Callable[[IwinBlock], object], calls: list[str]
) -> None:
    block, x = block_of().train(), torch.randn(1, 2, 8, 7, 64)
    block(x)
    assert len(calls) == 1
    change(block)
    with torch.autocast("cpu", torch.bfloat16, enabled=block.attn.proj.weight.dtype == torch.bfloat16):
        block(x).sum().backward()
        with torch.no_grad():
            block(x)
            block.eval()(x)
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["attn", "attn.proj_drop", "mlp.drop"])
def test_each_layer_says_for_itself_whether_it_drops_out(name: str, calls: list[str]) -> None:
    block, x = block_of(drop=0.5, attn_drop=0.5).eval(), torch.randn(1, 2, 8, 7, 64)
    assert torch.equal(block(x), block(x))
    assert len(calls) == 2
    block.get_submodule(name).training = True
    assert not torch.equal(block(x), block(x))
    assert len(calls) == 2


@pytest.mark.parametrize("name", LAYERS)
def test_who_hooks_into_a_layer_is_called(name: str, calls: list[str]) -> None:
    block, x = block_of(), torch.randn(1, 2, 7, 7, 64)
    seen: list[int] = []
    hook = block.get_submodule(name).register_forward_hook(lambda *_: seen.append(1))
    made = block(x)
    assert seen
    assert not calls
    hook.remove()
    assert error(block(x), made.double()) < 1e-6
    assert len(calls) == 1


def test_hooks_of_the_block_itself_do_not_matter(calls: list[str]) -> None:
    block, seen = block_of(), []
    block.register_forward_hook(lambda *_: seen.append(1))
    block(torch.randn(1, 2, 7, 7, 64))
    assert seen == [1]
    assert len(calls) == 1


def test_who_looks_at_operators_sees_them(calls: list[str]) -> None:
    block, x = block_of(dwconv=False), torch.randn(1, 1, 7, 7, 64)
    with FlopCounterMode(display=False) as counter:
        block(x)
    assert counter.get_total_flops() == 2 * 49 * 12 * 64 * 64, "of linear layers"
    with torch.device("meta"):
        assert block_of()(torch.randn(1, 1, 7, 7, 64)).is_meta
    assert block.double()(x.double()).dtype == torch.float64
    assert not calls


def test_maps_that_are_none_are_pytorchs_to_refuse() -> None:
    block = block_of()
    for size in ((1, 7, 7, 64), (1, 1, 7, 7, 32), (1, 1, 7, 7, 96)):
        with pytest.raises((RuntimeError, ValueError)):
            block(torch.randn(size))
    assert block(torch.randn(0, 1, 7, 7, 64)).shape == (0, 1, 7, 7, 64)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_an_empty_hidden_layer_adds_a_bias() -> None:
    block, x = IwinBlock(64, num_heads=2, mlp_ratio=0.01), torch.randn(1, 1, 7, 7, 64)
    assert block.mlp.fc1.out_features == 0
    assert error(block(x), copy.deepcopy(block).double()(x.double())) < 1e-6


def test_layers_without_biases_are_taken(calls: list[str]) -> None:
    block, x, grad = block_of(), torch.randn(1, 2, 8, 7, 64), torch.randn(1, 2, 8, 7, 64)
    for name in ("attn.qkv", "attn.proj", "dwconv.depthwise", "mlp.fc1", "mlp.fc2"):
        block.get_submodule(name).register_parameter("bias", None)
    found = results(block, x, grad)
    assert len(calls) == 2
    for value, right in zip(found, results(copy.deepcopy(block).double(), x.double(), grad.double()), strict=True):
        assert error(value, right) < 2e-6


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyTorch's own
def test_derivatives_computed_forward_are_not_lost() -> None:
    block, x, tangent = block_of(), torch.randn(1, 1, 7, 7, 64), torch.randn(1, 1, 7, 7, 64)
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):  # of PyTorch's, that one alone has them
        found = forward_ad.unpack_dual(block(forward_ad.make_dual(x, tangent))).tangent
        exact_block = copy.deepcopy(block).double()
        exact = forward_ad.unpack_dual(exact_block(forward_ad.make_dual(x.double(), tangent.double()))).tangent
        with torch.no_grad():
            without = forward_ad.unpack_dual(block(forward_ad.make_dual(x, tangent))).tangent
    for value in (found, without):
        assert value is not None
        assert error(value, exact) < 1e-5


def test_numbers_that_are_read_as_their_negatives_are_taken_so() -> None:
    block, x = block_of(), torch.randn(1, 1, 7, 7, 64)
    assert error(block(torch._neg_view(x)), block(-x).double()) < 1e-6
