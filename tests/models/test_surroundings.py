"""A model does the same whatever surrounds it: transforms of torch.func, autocast, hooks everywhere."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook

from iwin.errors import ModelError
from iwin.models.block import IwinBlock
from iwin.models.iwin import IwinTransformer
from iwin.models.surroundings import compute_dtype, is_watched


@pytest.fixture
def block() -> IwinBlock:
    torch.manual_seed(0)
    return IwinBlock(64, num_heads=2, window_size=(2, 2)).eval()


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, on how it does it
def test_forward_derivatives_equal_differences(block: IwinBlock) -> None:
    x, direction = torch.randn(2, 1, 2, 4, 4, 64)
    with sdpa_kernel(SDPBackend.MATH):  # flash attention has none and says so
        tangent: Tensor = torch.func.jvp(block, (x,), (direction,))[1]
    exact = block.double()
    step = 1e-6 * direction.double()
    differences = (exact(x.double() + step) - exact(x.double() - step)) / 2e-6
    torch.testing.assert_close(tangent.double(), differences, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_derivatives_of_samples_equal_autograds(block: IwinBlock) -> None:
    def loss(x: Tensor) -> Tensor:
        return block(x[None]).square().sum()

    xs = torch.randn(3, 2, 4, 4, 64)
    by_samples: Callable[[Tensor], Any] = torch.func.vmap(torch.func.grad(loss))
    inputs = xs.clone().requires_grad_()
    (expected,) = torch.autograd.grad(block(inputs).square().sum(), inputs)
    torch.testing.assert_close(by_samples(xs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gradients", [True, False])
def test_float64_stays_what_it_is_under_autocast(block: IwinBlock, gradients: bool) -> None:
    block.double()
    x = torch.randn(1, 2, 4, 4, 64, dtype=torch.float64)
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16):
        made = block(x)
    assert compute_dtype(x) == made.dtype == torch.float64
    torch.testing.assert_close(made, block(x))


def test_hooks_on_all_modules_are_called(block: IwinBlock) -> None:
    seen: list[nn.Module] = []
    assert not is_watched(block)
    handle = register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        with torch.no_grad():
            block(torch.randn(1, 2, 4, 4, 64))
    finally:
        handle.remove()
    assert block.dwconv is not None
    for layer in (block.dwconv.depthwise, block.mlp.fc1, block.mlp.act):
        assert layer in seen


@pytest.mark.parametrize("watch", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_hooks_on_gradients_are_called(block: IwinBlock, watch: str) -> None:
    assert block.dwconv is not None
    layers, seen = (block.dwconv.depthwise, block.attn.qkv, block.norm2, block.mlp.fc1, block.mlp.act), []
    for layer in layers:
        getattr(layer, watch)(lambda layer, *_: seen.append(layer))
        assert is_watched(layer)
    block(torch.randn(1, 2, 4, 4, 64, requires_grad=True)).sum().backward()
    assert set(seen) == set(layers)


@pytest.mark.parametrize("grad", [False, True])
def test_tensors_without_data_go_through_a_block(block: IwinBlock, grad: bool) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.set_grad_enabled(grad):
        assert block(torch.randn(1, 2, 4, 4, 64)).shape == (1, 2, 4, 4, 64)


def test_who_traces_operators_gets_all_of_them(block: IwinBlock) -> None:
    x = torch.randn(1, 2, 4, 4, 64)
    with torch.no_grad():
        program = make_fx(block)(torch.randn(1, 2, 4, 4, 64))
        torch.testing.assert_close(program(x), block(x), rtol=1e-4, atol=1e-5)


def test_a_forward_put_in_place_of_a_layers_own_is_called(block: IwinBlock, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def forward(x: Tensor) -> Tensor:
        seen.append(x.shape)
        return nn.GELU()(x)

    monkeypatch.setattr(block.mlp.act, "forward", forward)
    with torch.no_grad():
        block(torch.randn(1, 2, 4, 4, 64))
    assert seen == [(1, 2, 4, 4, 256)]


@pytest.mark.parametrize(
    "clips",
    [
        torch.zeros(3, 4, 32, 32),
        torch.zeros(1, 3, 0, 32, 32),
        torch.zeros(1, 3, 4, 0, 32),
        torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8),
    ],
)
def test_what_is_no_normalised_clip_is_refused(clips: Tensor) -> None:
    backbone = IwinTransformer(embed_dim=32, depths=(1, 1), num_heads=(1, 2))
    with pytest.raises(ModelError, match=r"takes normalised clips \(B, 3, T, H, W\)"):
        backbone(clips)


def test_no_clips_give_no_features() -> None:
    backbone = IwinTransformer(embed_dim=32, depths=(1, 1), num_heads=(1, 2)).eval()
    assert backbone(torch.zeros(0, 3, 4, 32, 32)).shape == (0, 64, 2, 4, 4)
