"""What layers may have become, and gradients may be, beyond what kernels are made for: then PyTorch does the work."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from iwin.models.block import DepthwiseConv, DropPath, IwinBlock, Mlp
from iwin.models.iwin import Downsample, IwinTransformer, PatchEmbed
from iwin.models.kernels.layers import LayerNorm
from iwin.models.native import common
from iwin.models.native.linear import Linear
from tests.models.precisions import error, needs_bf16, needs_kernels


class WithItself(DepthwiseConv):
    """A depthwise convolution that is given one map."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve x and add it."""
        return super().forward(x, x)


MAP = (1, 2, 9, 8, 32)
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "patches": (lambda: PatchEmbed(32), (1, 3, 4, 8, 12)),
    "norm": (lambda: LayerNorm(32), MAP),
    "linear": (lambda: Linear(32, 64), MAP),
    "mlp": (lambda: Mlp(32, 64), MAP),
    "depthwise": (lambda: WithItself(32), MAP),
    "block": (lambda: IwinBlock(32, num_heads=1), MAP),
    "block of larger heads": (lambda: IwinBlock(64, num_heads=1), (1, 2, 9, 8, 64)),
    "downsample": (lambda: Downsample(32), MAP),
}


def drawn(layer: nn.Module) -> nn.Module:
    """A layer with weights of a size at which all of it counts."""
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return layer


def outcome(layer: nn.Module, x: Tensor) -> Tensor | str:
    """What a layer makes of x, or what it says instead."""
    try:
        made: Tensor = layer(x)
    except RuntimeError as refusal:
        return str(refusal)
    return made


# ------------------------------------------------------------------------------------------- other parameters


def other(name: str, value: object) -> Callable[[nn.Module], object]:
    """Puts a parameter by that name into a layer."""
    parent, _, last = name.rpartition(".")
    return lambda layer: setattr(layer.get_submodule(parent), last, value)


THREE = nn.Parameter(torch.zeros(3))
CHANGES: list[tuple[str, str, Callable[[nn.Module], object]]] = [
    ("downsample", "no bias of its norm", other("norm.bias", None)),
    ("patches", "no bias of its norm", other("norm.bias", None)),
    ("norm", "no bias", other("bias", None)),
    ("downsample", "a bias of three", other("conv.bias", THREE)),
    ("downsample", "a norm of three", other("norm.weight", THREE)),
    ("patches", "a bias of three", other("proj.bias", THREE)),
    ("patches", "a norm of three", other("norm.weight", THREE)),
    ("norm", "a weight of three", other("weight", THREE)),
    ("linear", "a bias of three", other("bias", THREE)),
    ("depthwise", "a bias of three", other("depthwise.bias", THREE)),
    *((name, "elsewhere", lambda layer: layer.to("meta")) for name in LAYERS if name != "depthwise"),
]


@needs_kernels
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    ("name", "change"), [pytest.param(name, change, id=f"{name}: {what}") for name, what, change in CHANGES]
)
def test_parameters_that_kernels_cannot_read_are_pytorchs_to_take_or_to_refuse(
    name: str, change: Callable[[nn.Module], object], grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, shape = LAYERS[name]
    layer, x = drawn(make()), torch.randn(shape)
    change(layer)
    with torch.set_grad_enabled(grad):
        found = outcome(layer, x)
        monkeypatch.setattr(common, "has", lambda *_: False)
        right = outcome(layer, x)
    if isinstance(right, str):
        assert found == right
    else:
        assert isinstance(found, Tensor)
        assert error(found, right) < 1e-6


@needs_bf16
@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_under_autocast_weights_say_how_precise_patches_are(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = IwinTransformer(embed_dim=32, depths=(1, 1), num_heads=(1, 2), num_frames=4).to(dtype)
    x = torch.randn(1, 3, 4, 16, 16)
    precisions = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            precisions.append((model.embed(x).dtype, model(x).dtype))
        monkeypatch.setattr(common, "has", lambda *_: False)
    assert precisions[0] == precisions[1]
    assert precisions[0][0] == dtype


def test_a_time_embedding_may_be_more_precise_than_its_model() -> None:
    model = IwinTransformer(embed_dim=32, depths=(1,), num_heads=(1,), num_frames=4).bfloat16()
    assert model.time_embed is not None
    model.time_embed = nn.Parameter(model.time_embed.float())
    assert model.embed(torch.randn(1, 3, 4, 16, 16).bfloat16()).dtype == torch.float32


# ------------------------------------------------------------------------------------------- other layers of a block


class Nothing(LayerNorm):
    """A norm that gives zeros."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros like x."""
        return 0 * x


class Precise(Mlp):
    """An MLP that gives float32 under autocast too."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x in float32."""
        return super().forward(x).float()


class Repeated(Mlp):
    """An MLP whose result has strides of 0."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean of x for all channels."""
        return x.mean(-1, keepdim=True).expand(x.shape)


class Pooled(nn.Module):
    """An MLP that looks at all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, H, W, C)."""
        return x * x.mean((1, 2, 3), keepdim=True)


class Tenth(nn.Module):
    """Stochastic depth that scales in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        """A tenth of x."""
        return 0.1 * x


class NoAttention(nn.Module):
    """A branch that is the same everywhere, and says so by its shape."""

    def forward(self, x: Tensor, _windows: object) -> Tensor:
        """The mean of all tokens, (1, 1, 1, 1, C)."""
        return x.mean((0, 1, 2, 3), keepdim=True)


REPLACED: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "another norm": ("norm2", lambda: Nothing(32)),
    "no norm": ("norm2", nn.Identity),
    "a norm without bias": ("norm2", lambda: nn.RMSNorm(32)),
    "a precise MLP": ("mlp", lambda: Precise(32, 64)),
    "a result that repeats": ("mlp", lambda: Repeated(32, 64)),
    "an MLP that looks at all tokens": ("mlp", Pooled),
    "a layer that does within an MLP": ("mlp.drop", Pooled),
    "another stochastic depth": ("drop_path", Tenth),
    "no attention": ("attn", NoAttention),
    "all as it was": ("drop_path", lambda: DropPath(0.5)),
}


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("name", "make"), REPLACED.values(), ids=REPLACED)
def test_a_block_of_other_layers_gives_the_same_without_gradients(
    name: str, make: Callable[[], nn.Module], mixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iwin.models.native.block.takes", lambda *_: False)  # all of a block, where all is as it was
    block, x = IwinBlock(32, num_heads=2, dwconv=name != "attn"), torch.randn(MAP)
    block.set_submodule(name, make())
    drawn(block).eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        right = block(x)
        with torch.no_grad():
            found = block(x)
    assert found.dtype == right.dtype
    assert error(found, right) < (5e-3 if mixed else 1e-6)


def test_without_gradients_a_map_may_have_any_strides() -> None:
    block, x = drawn(IwinBlock(64, num_heads=1)).eval(), torch.randn(1, 2, 9, 8, 128)[..., :64]
    with torch.no_grad():
        assert torch.equal(block(x), block(x.contiguous()))


# ------------------------------------------------------------------------------------------- gradients, memory


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_may_be_negatives_of_what_memory_holds(name: str) -> None:
    make, shape = LAYERS[name]
    layer = drawn(make())
    made = layer(torch.randn(shape))
    grad = torch.randn_like(made)

    def gradients(grad: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(made, list(layer.parameters()), grad, retain_graph=True)

    for found, right in zip(gradients(torch._neg_view(grad)), gradients(-grad), strict=True):
        assert torch.equal(found, right)


@needs_kernels
def test_clips_made_for_inference_can_be_trained_on() -> None:
    layer = drawn(PatchEmbed(32))
    with torch.inference_mode():
        x = torch.randn(1, 3, 4, 8, 12)
    found = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    for value, right in zip(
        found, torch.autograd.grad(layer(x.clone()).square().sum(), list(layer.parameters())), strict=True
    ):
        assert error(value, right) < 1e-5


LITTLE_MEMORY = """
import resource, torch
from iwin.models.block import IwinBlock
from iwin.models.iwin import Downsample, PatchEmbed
from iwin.models.native.linear import Linear

layer, x = {layer}, torch.zeros({shape})
torch.set_grad_enabled({backward})
layer(x[..., :8, :8, :])
made = layer(x.requires_grad_({layer!r} != "PatchEmbed(96)")) if {backward} else None
grad = None if made is None else torch.ones_like(made)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {more}, used + {more}))
layer(x) if made is None else made.backward(grad)
"""


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize(
    ("kernel", "layer", "shape", "backward"),
    [
        ("block", "IwinBlock(64, num_heads=2)", (1, 8, 200, 200, 64), False),
        pytest.param("embed_backward", "PatchEmbed(96)", (1, 3, 2, 2000, 3000), True, marks=pytest.mark.slow),
        pytest.param("downsample_backward", "Downsample(64)", (1, 1, 1000, 1500, 64), True, marks=pytest.mark.slow),
        pytest.param("linear", "Linear(8192, 8192)", (1, 1, 1, 2000, 8192), False, marks=pytest.mark.slow),
    ],
)
def test_a_lack_of_memory_is_an_error_and_no_crash(
    kernel: str, layer: str, shape: tuple[int, ...], backward: bool
) -> None:
    bytes_of_x = 4 * torch.Size(shape).numel()
    script = LITTLE_MEMORY.format(layer=layer, shape=shape, backward=backward, more=bytes_of_x * 3 // 2)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"RuntimeError: not enough memory for the kernel {kernel}_" in done.stderr
