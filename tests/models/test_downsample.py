"""The way between stages in C++, against PyTorch's in float64."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwin.engine.optim import build_optimizer
from iwin.models.iwin import Downsample, IwinTransformer
from iwin.models.kernels.layers import LayerNorm
from iwin.models.native.downsample import apply, takes
from tests.models.precisions import assert_differentiates, needs, needs_kernels, pairs

PAIRS = pairs("weight_gradient")
SHAPES = [
    pytest.param((1, 1, 1, 1, 32), id="one place"),
    pytest.param((2, 3, 5, 8, 32), id="an odd and an even side"),
    pytest.param((1, 2, 8, 3, 64), id="an even and an odd side"),
    pytest.param((1, 3, 42, 38, 32), id="slices of a thread's own, of several frames"),
    pytest.param((3, 2, 2, 1100, 32), id="lines longer than a slice"),
    pytest.param((2, 2, 5, 6, 24), id="channels that fill a register and a half"),
    pytest.param((1, 2, 42, 38, 8), id="channels that fill half a register"),
]


def layers(channels: int, dtype: torch.dtype = torch.float32, *, bias: bool = True) -> tuple[LayerNorm, nn.Conv2d]:
    norm = LayerNorm(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, bias=bias)
    return norm.to(dtype), conv.to(dtype).to(memory_format=torch.channels_last)


def by_pytorch(x: Tensor, norm: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    frames = F.layer_norm(x, x.shape[-1:], norm, norm_bias).flatten(0, 1).permute(0, 3, 1, 2)
    height, width = frames.shape[2:]
    frames = F.conv2d(F.pad(frames, (0, 1 + width % 2, 0, 1 + height % 2)), weight, bias, stride=2)
    return frames.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


@needs_kernels
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "mixed"), PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
def test_result_and_gradients_are_those_of_the_definition(
    shape: tuple[int, ...], dtype: torch.dtype, mixed: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    norm, conv = layers(shape[-1], dtype, bias=bias)
    x = torch.randn(shape).to(dtype).requires_grad_()
    found = assert_differentiates(
        lambda: apply(x, norm, conv),
        by_pytorch,
        [x, *norm.parameters(), *conv.parameters()],
        mixed=mixed,
        tolerances={torch.float32: 2e-6, torch.bfloat16: 6e-3},
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert takes(x, norm, conv)
        assert torch.equal(apply(x, norm, conv), found[0])
    assert found[4].is_contiguous(memory_format=torch.channels_last), "as the weight is"


@needs("downsample_bf16_bf16_fp32")
def test_under_autocast_a_map_may_be_less_precise_than_the_weights() -> None:
    torch.manual_seed(0)
    norm, conv = layers(32)
    x = torch.randn(1, 2, 9, 6, 32, dtype=torch.bfloat16, requires_grad=True)
    given = [x, *norm.parameters(), *conv.parameters()]
    assert_differentiates(lambda: apply(x, norm, conv), by_pytorch, given, mixed=True, tolerances={x.dtype: 6e-3})


@needs_kernels
@pytest.mark.parametrize("shape", [(2, 3, 9, 12, 32), (1, 3, 42, 38, 32)])
def test_threads_and_other_clips_change_nothing(
    shape: tuple[int, ...], any_threads: Callable[[Callable[[], list[Tensor]]], None]
) -> None:
    torch.manual_seed(0)
    norm, conv = layers(shape[-1])
    x = torch.randn(shape, requires_grad=True)

    def results() -> list[Tensor]:
        made = apply(x, norm, conv)
        return [made, *torch.autograd.grad(made.square().sum(), [x, *norm.parameters(), *conv.parameters()])]

    any_threads(results)
    with torch.no_grad():
        assert torch.equal(apply(torch.cat([x, -x, x]), norm, conv)[: len(x)], apply(x, norm, conv))


@needs_kernels
def test_what_it_does_not_do_is_left_to_the_layers() -> None:
    def conv(channels: int = 32, **settings: object) -> nn.Conv2d:
        return nn.Conv2d(channels, 64, 3, **{"stride": 2, **settings})  # type: ignore[arg-type]

    x, norm = torch.zeros(1, 2, 5, 7, 32), LayerNorm(32)
    assert takes(x, norm, conv())
    assert takes(x, norm, conv(bias=False))
    assert not takes(x[:0], norm, conv())
    assert not takes(x[0], norm, conv())
    assert not takes(x, LayerNorm((7, 32)), conv())
    assert not takes(torch.zeros(1, 2, 5, 7, 12), LayerNorm(12), conv(12)), "channels that do not divide by 8"
    for other in ({"stride": 1}, {"padding": 1}, {"dilation": 2}, {"groups": 2}, {"padding_mode": "reflect"}):
        assert not takes(x, norm, conv(**other))
    assert not takes(x, norm, nn.Conv2d(32, 64, 2, stride=2))
    assert not takes(x, norm, nn.Conv2d(32, 68, 3, stride=2))
    assert not takes(x, norm, nn.Identity())
    for elsewhere in (x.double(), x.half(), x.bfloat16(), x.to("meta")):
        assert not takes(elsewhere, norm, conv())
    for watched in (norm, looked_at := conv()):
        handle = watched.register_forward_hook(lambda *_: None)
        assert not takes(x, norm, looked_at)
        handle.remove()


@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 9)])
def test_the_way_down_is_the_same_either_way(height: int, width: int) -> None:
    torch.manual_seed(0)
    down, x = Downsample(32), torch.randn(1, 2, height, width, 32)
    other = copy.deepcopy(down)
    seen: list[int] = []
    other.conv.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(down(x), other(x), rtol=1e-5, atol=1e-6)
    assert seen == [1]


def test_weights_stay_channels_last_and_train_as_any_others() -> None:
    """Fused optimisers read weights, gradients and their state in the order of memory, whatever their strides."""
    torch.manual_seed(0)
    settings = {"embed_dim": 32, "depths": (1, 1), "num_heads": (1, 2), "num_frames": 4, "drop_path_rate": 0.0}
    model = IwinTransformer(**settings)  # type: ignore[arg-type]
    twin = IwinTransformer(**settings)  # type: ignore[arg-type]
    twin.load_state_dict(model.state_dict())
    x, direction = torch.randn(1, 3, 4, 32, 32), torch.randn(1, 64, 2, 4, 4)
    trained = []
    for net, fused in ((model, True), (twin, False)):
        optimizer = build_optimizer([{"params": list(net.parameters())}], fused=fused)
        for _ in range(2):
            optimizer.zero_grad()
            (net(x) * direction).sum().backward()
            optimizer.step()
        weight = net.get_parameter("layers.0.downsample.conv.weight")
        assert weight.grad is not None
        tensors = [weight, weight.grad, *(state for state in optimizer.state[weight].values() if state.ndim)]
        assert len(tensors) == 4
        assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors)
        trained.append(weight)
    torch.testing.assert_close(*trained, rtol=1e-5, atol=1e-6)
