"""The convolution between stages as a matrix product, against PyTorch's in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwin.engine.optim import build_optimizer
from iwin.models.iwin import Downsample, IwinTransformer
from iwin.models.native.downsample import convolve, takes
from tests.models.precisions import assert_differentiates


def by_pytorch(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    frames = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), weight, bias, stride=2)
    return frames.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "mixed"), [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)])
@pytest.mark.parametrize("shape", [(1, 1, 3, 3, 8), (2, 3, 5, 7, 16), (1, 2, 9, 3, 32)])
def test_result_and_gradients_are_those_of_the_definition(
    shape: tuple[int, ...], dtype: torch.dtype, mixed: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(shape[-1], 2 * shape[-1], 3, stride=2, bias=bias).to(dtype)
    layer = layer.to(memory_format=torch.channels_last)
    x = torch.randn(shape).to(dtype).requires_grad_()
    found = assert_differentiates(
        lambda: convolve(x, layer.weight, layer.bias),
        by_pytorch,
        [x, *layer.parameters()],
        mixed=mixed,
        tolerances={torch.float32: 2e-6, torch.bfloat16: 6e-3},
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert takes(x, layer)
        assert torch.equal(convolve(x, layer.weight, layer.bias), found[0])
    assert found[2].is_contiguous(memory_format=torch.channels_last), "as the weight is"


def test_what_it_does_not_do_is_left_to_the_layer() -> None:
    def layer(**settings: object) -> nn.Conv2d:
        return nn.Conv2d(8, 16, 3, **{"stride": 2, **settings})  # type: ignore[arg-type]

    x = torch.zeros(1, 2, 5, 7, 8)
    assert takes(x, layer())
    assert takes(x, nn.Conv2d(8, 24, 3, stride=2, bias=False))
    assert takes(torch.zeros(1, 3, 9, 13, 8), layer()), "as many positions as a patch has numbers"
    assert takes(torch.zeros(5, 3, 9, 13, 8), layer()), "in each clip, however many there are"
    assert not takes(torch.zeros(1, 1, 3, 147, 8), layer()), "one more"
    assert not takes(x[:0], layer())
    assert not takes(x[:, :, :4], layer()), "an even side"
    for other in ({"stride": 1}, {"padding": 1}, {"dilation": 2}, {"groups": 2}, {"padding_mode": "reflect"}):
        assert not takes(x, layer(**other))
    assert not takes(x, nn.Conv2d(8, 16, 2, stride=2))
    assert not takes(x, nn.Identity())
    for elsewhere in (x.double(), x.half(), x.to("meta")):
        assert not takes(elsewhere, layer())
    watched = layer()
    watched.register_forward_hook(lambda *_: None)
    assert not takes(x, watched)


@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 9)])
def test_the_way_down_is_the_same_either_way(height: int, width: int) -> None:
    torch.manual_seed(0)
    down, x = Downsample(16), torch.randn(1, 2, height, width, 16)
    fast, seen = down(x), []
    down.conv.register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(fast, down(x), rtol=1e-5, atol=1e-6)
    assert seen == [1]


def test_gradients_of_gradients_are_pytorchs() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(8, 16, 3, stride=2), torch.randn(1, 2, 5, 5, 8, requires_grad=True)
    results = []
    for convolution in (convolve, by_pytorch):
        first = torch.autograd.grad(convolution(x, layer.weight, layer.bias).square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(first[0].square().sum(), [x, layer.weight]))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


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
