"""The patch embedding in C++, against PyTorch's in float64."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwin.models.iwin import IwinTransformer, PatchEmbed
from iwin.models.native.embed import apply, takes
from tests.models.precisions import error, needs, needs_kernels, pairs

PAIRS = pairs("weight_gradient")
CLIPS = [
    pytest.param((1, 3, 2, 4, 4), (2, 4, 4), id="one patch"),
    pytest.param((2, 3, 6, 8, 64), (2, 4, 4), id="whole patches"),
    pytest.param((2, 3, 5, 21, 50), (2, 4, 4), id="parts of patches at every end"),
    pytest.param((1, 2, 4, 9, 33), (1, 8, 2), id="other patches"),
    pytest.param((2, 3, 1, 17, 40), (1, 4, 4), id="images"),
]


def embedding(
    patch: tuple[int, int, int], planes: int, dtype: torch.dtype = torch.float32, *, channels: int = 32
) -> PatchEmbed:
    torch.manual_seed(0)
    made = PatchEmbed(channels, patch_size=patch, in_chans=planes, image=patch[0] == 1)
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made.to(dtype)


def by_pytorch(x: Tensor, patch: tuple[int, int, int], weights: list[Tensor]) -> Tensor:
    weight, bias, norm, norm_bias, plus = weights
    ends = [-side % length for side, length in zip(x.shape[2:], patch, strict=True)]
    x = F.pad(x, (0, ends[2], 0, ends[1], 0, ends[0]))
    x = F.conv3d(x, weight.view(len(weight), -1, *patch), bias, stride=patch).permute(0, 2, 3, 4, 1)
    return F.layer_norm(x, x.shape[-1:], norm, norm_bias) + plus[:, None, None]


@needs_kernels
@pytest.mark.parametrize("channels", [32, 24])
@pytest.mark.parametrize(("dtype", "mixed"), PAIRS)
@pytest.mark.parametrize(("shape", "patch"), CLIPS)
def test_result_and_gradients_are_those_of_the_definition(
    shape: tuple[int, ...], patch: tuple[int, int, int], dtype: torch.dtype, mixed: bool, channels: int
) -> None:
    layers = embedding(patch, shape[1], dtype, channels=channels)
    assert layers.norm is not None
    x = torch.randn(shape).to(dtype)
    plus = torch.randn(-(-shape[2] // patch[0]), channels).to(dtype).requires_grad_()
    given = [*layers.parameters(), plus]
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert takes(x, layers.proj, layers.norm)
        made = apply(x, layers.proj, layers.norm, plus)
        with torch.no_grad():
            assert torch.equal(apply(x, layers.proj, layers.norm, plus), made)
    assert made.dtype == dtype, "a norm's result is in its weights' precision"
    grad = torch.randn(made.shape).to(dtype)
    found = torch.autograd.grad(made, given, grad)
    exactly = [tensor.detach().double().requires_grad_() for tensor in given]
    exact = by_pytorch(x.double(), patch, exactly)
    tolerance = 6e-3 if mixed or dtype == torch.bfloat16 else 2e-6
    assert error(made, exact) < tolerance
    for value, right, tensor in zip(found, torch.autograd.grad(exact, exactly, grad.double()), given, strict=True):
        assert error(value, right) < tolerance
        assert (value.dtype, value.shape) == (tensor.dtype, tensor.shape)


@needs("embed_fp32_bf16")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_clips_may_be_less_precise_than_the_weights(dtype: torch.dtype) -> None:
    layers, x = embedding((2, 4, 4), 3), torch.randn(1, 3, 4, 8, 12).to(dtype)
    assert layers.norm is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert takes(x, layers.proj, layers.norm)
        assert torch.equal(layers(x), layers(x.float()))


@needs_kernels
def test_threads_change_nothing(any_threads: Callable[[Callable[[], list[Tensor]]], None]) -> None:
    layers, x = embedding((2, 4, 4), 3), torch.randn(2, 3, 6, 20, 37)

    def results() -> list[Tensor]:
        made = layers(x)
        return [made, *torch.autograd.grad(made.square().sum(), list(layers.parameters()))]

    any_threads(results)


@needs_kernels
def test_what_it_does_not_do_is_left_to_the_layers() -> None:
    layers, x = embedding((2, 4, 4), 3), torch.zeros(1, 3, 2, 8, 8)
    proj, norm = layers.proj, layers.norm
    assert norm is not None
    assert takes(x, proj, norm)
    assert not takes(x[:0], proj, norm)
    assert not takes(torch.zeros(1, 2, 2, 8, 8), proj, norm), "other planes than the weight has"
    assert not takes(x.requires_grad_(), proj, norm), "it has no gradient of clips"
    with torch.no_grad():
        assert takes(x, proj, norm)
    x = x.detach()
    for elsewhere in (x.double(), x.half(), x.bfloat16(), x.to("meta")):
        assert not takes(elsewhere, proj, norm)
    for other in ({"stride": (2, 4, 2)}, {"bias": False}):
        settings = {"stride": (2, 4, 4), **other}
        assert not takes(x, nn.Conv3d(3, 32, (2, 4, 4), **settings), norm)  # type: ignore[arg-type]
    assert not takes(x, nn.Conv3d(3, 32, (1, 4, 3), stride=(1, 4, 3)), norm), "36 numbers, which do not divide by 8"
    assert not takes(x, nn.Conv3d(3, 44, (2, 4, 4), stride=(2, 4, 4)), nn.LayerNorm(44))
    for watched in (proj, norm):
        handle = watched.register_forward_hook(lambda *_: None)
        assert not takes(x, proj, norm)
        handle.remove()


@pytest.mark.parametrize("frames", [1, 2, 7, 8])
def test_an_embedded_clip_is_the_same_whoever_looks(frames: int) -> None:
    """A hook sees the patches before the time embedding is added; a still is repeated over its length."""
    torch.manual_seed(0)
    model = IwinTransformer(embed_dim=32, depths=(1,), num_heads=(1,), num_frames=8)
    assert model.time_embed is not None
    nn.init.normal_(model.time_embed)
    x, seen = torch.randn(2, 3, frames, 10, 12), []
    fast = model.embed(x)
    model.patch_embed.register_forward_hook(lambda _module, _given, made: seen.append(made))
    looked_at = model.embed(x)
    assert len(seen) == 1
    torch.testing.assert_close(fast, looked_at, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(looked_at, seen[0] + model._time_embedding(seen[0].shape[1]))


def test_a_patch_embedding_of_ones_own_is_given_clips_alone() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dim=(1, 3, 4)).view(len(x), -1, 1, 1, 1).expand(-1, -1, 2, 2, 32)

    model = IwinTransformer(embed_dim=32, depths=(1,), num_heads=(1,), num_frames=4)
    model.patch_embed = Own()  # type: ignore[assignment]
    assert model(torch.ones(1, 3, 2, 8, 8)).shape == (1, 32, 2, 2, 2)
