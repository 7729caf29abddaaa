"""The kernels against attention by its definition: on a GPU (`-m gpu`), or through Triton's interpreter.

    TRITON_INTERPRET=1 pytest tests/models/kernels/test_window_attention.py

`test_interpreter.py`, one of the slow tests, does the latter in a process of its own, with this file's slow tests.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iwin.models.iwin import IwinTransformer
from iwin.models.kernels import ops
from iwin.models.kernels.ops import interleaved_attention
from iwin.models.windows import Windows
from tests.models.kernels.calls import Calls, calls_when_compiled

INTERPRETED = ops.DEVICE == "cpu"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
longer = pytest.mark.slow if INTERPRETED else pytest.mark.gpu  # a GPU takes all as one
HALVES = [torch.float16, torch.bfloat16]


@dataclass(frozen=True)
class Shape:
    """A map and how it is attended to."""

    B: int
    T: int
    H: int
    W: int
    heads: int
    head_dim: int
    counts: tuple[int, int]
    window: tuple[int, int] = (0, 0)  # of these rows and columns, if it reaches beyond the map

    @property
    def windows(self) -> Windows:
        I, J = self.counts
        return Windows(I, J, self.window[0] or self.H // I, self.window[1] or self.W // J)

    def fill(self, dtype: torch.dtype = torch.float32) -> Tensor:
        channels = 3 * self.heads * self.head_dim
        return torch.randn(channels, generator=torch.Generator().manual_seed(5)).to(ops.DEVICE, dtype)

    def qkv(self, dtype: torch.dtype = torch.float32, *, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        channels = 3 * self.heads * self.head_dim
        x = torch.randn(self.B, self.T, self.H, self.W, channels, generator=generator)
        return x.to(ops.DEVICE, dtype)

    @property
    def scale(self) -> float:
        return float(self.head_dim**-0.5)


# The interpreter runs blocks of 32 queries and 16 keys.
SHAPES = {
    "blocks of keys not full": Shape(1, 3, 7, 4, 1, 32, (1, 2)),  # 42 tokens
    "one window, all blocks full": Shape(1, 1, 8, 8, 1, 32, (1, 1)),
    "one frame, windows in a column": Shape(2, 1, 9, 4, 1, 32, (3, 1)),
    "windows of one column": Shape(1, 2, 4, 3, 1, 16, (2, 3)),
    "several heads of 16 channels": Shape(1, 1, 4, 6, 3, 16, (1, 2)),
    "two samples, two heads of 64 channels": Shape(2, 1, 6, 4, 2, 64, (2, 1)),
    "a token a window": Shape(1, 1, 2, 3, 1, 32, (2, 3)),
    "beyond the map, all windows alike": Shape(2, 2, 4, 6, 2, 16, (2, 2), (4, 4)),
    "beyond the map, some windows full": Shape(1, 3, 7, 4, 2, 32, (2, 1), (4, 4)),
    "beyond the map, columns of many lengths": Shape(1, 1, 8, 17, 1, 16, (2, 3), (7, 7)),
}
SMALL = Shape(1, 2, 4, 6, 1, 16, (1, 2))


def by_definition(qkv: Tensor, fill: Tensor, shape: Shape, *, scale: float | None = None) -> Tensor:
    """Softmax attention of every window, cut out by its definition, in the precision of `qkv`."""
    down, across, rows, columns = shape.windows
    whole = fill.expand(shape.B, shape.T, down * rows, across * columns, -1).clone()
    whole[:, :, : shape.H, : shape.W] = qkv
    return _by_definition(whole, shape, scale)[:, :, : shape.H, : shape.W]


def _by_definition(qkv: Tensor, shape: Shape, scale: float | None) -> Tensor:
    out = qkv.new_zeros(*qkv.shape[:4], qkv.shape[4] // 3)
    I, J = shape.counts
    for i in range(I):
        for j in range(J):
            window = qkv[:, :, i::I, j::J].unflatten(-1, (3, shape.heads, -1))  # (B, T, rows, columns, 3, M, D)
            q, k, v = (part.flatten(1, 3).transpose(1, 2) for part in window.unbind(4))  # (B, M, N, D)
            weights = ((scale or shape.scale) * (q @ k.mT)).softmax(-1)
            out[:, :, i::I, j::J] = (weights @ v).transpose(1, 2).reshape(*window.shape[:4], -1)
    return out


def attend(qkv: Tensor, fill: Tensor, shape: Shape, *, scale: float | None = None) -> Tensor:
    return interleaved_attention(qkv, shape.windows, heads=shape.heads, scale=scale or shape.scale, fill=fill)


def with_gradient(attention: Any, qkv: Tensor, shape: Shape, **settings: Any) -> tuple[Tensor, ...]:
    """The result and the gradients of qkv and, where windows go beyond the map, of what they hold there."""
    given = [qkv.detach().requires_grad_(), shape.fill(qkv.dtype).requires_grad_()]
    out = attention(*given, shape, **settings)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out)
    asked = given[: 1 if shape.windows.fit(shape.H, shape.W) else 2]
    return out.detach(), *torch.autograd.grad(out, asked, grad)


def errors(values: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    """Relative errors, each by its norm."""
    return [float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(values, exact, strict=True)]


def error(values: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Largest relative error."""
    return max(errors(values, exact))


def assert_exact_in_float32(qkv: Tensor, shape: Shape, **settings: Any) -> None:
    exact = with_gradient(by_definition, qkv.double(), shape, **settings)
    assert error(with_gradient(attend, qkv, shape, **settings), exact) < 2e-6


# ------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_attention_by_its_definition(shape: Shape) -> None:
    assert_exact_in_float32(shape.qkv(), shape)


@longer
@pytest.mark.parametrize("seed", range(5))
def test_equals_attention_by_its_definition_at_random_shapes(seed: int) -> None:
    draw = random.Random(seed)
    counts = (draw.randint(1, 3), draw.randint(1, 2))
    H, W = counts[0] * draw.randint(1, 4), counts[1] * draw.randint(1, 4)
    shape = Shape(draw.randint(1, 2), draw.randint(1, 3), H, W, draw.randint(1, 2), 16, counts)
    assert_exact_in_float32(shape.qkv(seed=seed), shape)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    "name",  # windows of few tokens are left out: there plain attention hardly errs more than the result's rounding
    [
        "blocks of keys not full",
        "two samples, two heads of 64 channels",
        "beyond the map, all windows alike",
        pytest.param("one window, all blocks full", marks=longer),
        pytest.param("several heads of 16 channels", marks=longer),
        pytest.param("beyond the map, some windows full", marks=longer),
        pytest.param("beyond the map, columns of many lengths", marks=longer),
    ],
)
def test_half_precision_errs_no_more_than_plain_attention_in_it(name: str, dtype: torch.dtype) -> None:
    shape = SHAPES[name]
    qkv = shape.qkv(dtype)
    exact = with_gradient(by_definition, qkv.double(), shape)
    plain = with_gradient(by_definition, qkv, shape)
    # The interpreter cuts bfloat16 off where hardware rounds: twice the error.
    allowed = 2 if INTERPRETED and dtype == torch.bfloat16 else 1
    found = with_gradient(attend, qkv, shape)
    assert [x.dtype for x in found] == [dtype] * len(exact)
    for own, of_plain in zip(errors(found, exact), errors(plain, exact), strict=True):
        assert own < allowed * of_plain


@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_any_scale(scale: float) -> None:
    assert_exact_in_float32(SMALL.qkv(), SMALL, scale=scale)


# Programs compute the rest of their last block too, and store none of it.
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_scores_far_from_zero_do_not_overflow() -> None:
    qkv = SMALL.qkv()
    channels = SMALL.heads * SMALL.head_dim
    qkv[..., :channels] += 40.0
    qkv[..., channels : 2 * channels] -= 40.0  # every score is near -6400
    exact = with_gradient(by_definition, qkv.double(), SMALL)
    assert error(with_gradient(attend, qkv, SMALL), exact) < 1e-2  # float32 leaves scores of this size few digits


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("window", [(12, 12), (13, 13)], ids=["within the map", "beyond the map"])
@pytest.mark.parametrize("rate", [0.125, 0.25, 4.0])  # up to e^18, more than a fp16 holds, e^36 and e^572
def test_follows_scores_that_rise_from_key_to_key(
    rate: float, window: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iwin.models.kernels import window_attention as kernels

    shape = Shape(1, 1, 12, 12, 1, 16, (1, 1), window)  # three blocks of keys on a GPU
    qkv = shape.qkv(dtype)
    qkv[..., :32] = 0
    qkv[..., 0] = rate * torch.arange(144).view(12, 12).remainder(3).clamp(max=1)  # queries that rise, and others
    qkv[..., 16] = torch.arange(144).view(12, 12)
    fill = shape.fill(dtype)
    exact = by_definition(qkv.double(), fill.double(), shape, scale=1.0)
    steady = [choice for choice in kernels._forward_kernel.configs if "STEADY" in choice.kwargs]
    assert steady
    for choice in steady:
        monkeypatch.setattr(kernels._forward_kernel, "configs", [choice])
        assert error([attend(qkv, fill, shape, scale=1.0)], [exact]) < (1e-3 if dtype == torch.float16 else 1e-2)


@pytest.mark.parametrize("name", ["blocks of keys not full", "beyond the map, some windows full"])
def test_nan_in_a_key_reaches_all_of_its_window_and_head_and_nothing_else(name: str) -> None:
    shape = SHAPES[name]
    qkv = shape.qkv()
    row, column = 2, 1
    qkv[0, 1, row, column, shape.heads * shape.head_dim] = torch.nan  # the first head's key
    spoilt = torch.zeros(*qkv.shape[:4], shape.heads, shape.head_dim, dtype=torch.bool, device=ops.DEVICE)
    I, J = shape.counts
    spoilt[0, :, row % I :: I, column % J :: J, 0] = True
    out, grad, *_ = with_gradient(attend, qkv, shape)
    assert torch.equal(~out.isfinite(), spoilt.flatten(-2))
    assert torch.equal(~grad.isfinite(), spoilt.flatten(-2).repeat(1, 1, 1, 1, 3))
    assert torch.equal(out.isnan(), ~out.isfinite())


@longer
@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("blocks", [(16, 16), (16, 64), (64, 16), (128, 128)], ids=str)
def test_every_size_of_block_gives_the_same(
    blocks: tuple[int, int], steady: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import triton

    from iwin.models.kernels import window_attention as kernels

    for kernel in (kernels._forward_kernel, kernels._query_backward_kernel, kernels._key_backward_kernel):
        constants: dict[str, Any] = {"BLOCK_M": blocks[0], "BLOCK_N": blocks[1]}
        if steady and kernel is kernels._forward_kernel:
            constants["STEADY"] = True
        monkeypatch.setattr(kernel, "configs", [triton.Config(constants, num_warps=4, num_stages=2)])
    shape = Shape(1, 1, 7, 10, 1, 16, (1, 1))  # 70 tokens
    qkv = shape.qkv(torch.float16)
    exact = with_gradient(by_definition, qkv.double(), shape)
    assert error(with_gradient(attend, qkv, shape), exact) < 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["_forward_kernel", "_query_backward_kernel", "_key_backward_kernel"])
def test_every_choice_of_the_tuner_at_the_size_of_a_published_model(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iwin.models.kernels import window_attention as kernels

    shape = Shape(2, 16, 14, 14, 3, 32, (2, 2))
    qkv = shape.qkv(torch.bfloat16)
    exact = with_gradient(by_definition, qkv.double(), shape)
    plain = with_gradient(by_definition, qkv, shape)
    for choice in getattr(kernels, kernel).configs:
        monkeypatch.setattr(getattr(kernels, kernel), "configs", [choice])
        assert error(with_gradient(attend, qkv, shape), exact) < error(plain, exact), str(choice)


# ------------------------------------------------------------------------------------------- memory


def test_reads_a_part_of_a_larger_map_where_it_lies() -> None:
    part = Shape(1, 3, 6, 8, 1, 16, (2, 2)).qkv()[:, 1:, :4, 2:]
    assert not part.is_contiguous()
    assert torch.equal(attend(part, SMALL.fill(), SMALL), attend(part.contiguous(), SMALL.fill(), SMALL))
    assert_exact_in_float32(part, SMALL)


def test_takes_channels_that_are_not_adjacent() -> None:
    qkv = SMALL.qkv()
    scattered = qkv.movedim(-1, 1).contiguous().movedim(1, -1)
    assert scattered.stride(-1) != 1
    assert torch.equal(attend(scattered, SMALL.fill(), SMALL), attend(qkv, SMALL.fill(), SMALL))


def test_takes_gradients_that_are_expanded() -> None:
    qkv, fill = SMALL.qkv().requires_grad_(), SMALL.fill()
    summed = torch.autograd.grad(attend(qkv, fill, SMALL).sum(), qkv)[0]
    expected = torch.autograd.grad(by_definition(qkv, fill, SMALL).sum(), qkv)[0]
    torch.testing.assert_close(summed, expected, rtol=0, atol=1e-5)


def test_reads_samples_more_than_two_to_the_31_elements_apart() -> None:
    shape = Shape(3, 1, 2, 2, 1, 16, (1, 1))
    qkv = shape.qkv(torch.float16)
    apart = 2**30 + 64
    memory = torch.empty(2 * apart + qkv[0].numel(), dtype=torch.float16, device=ops.DEVICE)
    far = memory.as_strided(qkv.shape, (apart, *qkv.stride()[1:])).copy_(qkv)
    for value, expected in zip(with_gradient(attend, far, shape), with_gradient(attend, qkv, shape), strict=True):
        assert torch.equal(value, expected)


# ------------------------------------------------------------------------------------------- as an operator


class Projected(nn.Module):
    """A projection to q, k and v, attention where the kernels take it, and a projection of the result."""

    def __init__(self) -> None:
        super().__init__()
        channels = SMALL.heads * SMALL.head_dim
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        attention = attend if ops.takes(x, SMALL.heads) else by_definition
        return self.proj(attention(self.qkv(x), self.qkv.bias, SMALL))


def projected() -> tuple[Projected, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(SMALL.B, SMALL.T, SMALL.H, SMALL.W, SMALL.heads * SMALL.head_dim)
    return Projected().to(ops.DEVICE, torch.float16), x.to(ops.DEVICE, torch.float16)


def test_leaves_no_clips_and_float64_to_pytorch() -> None:
    x = torch.zeros(1, 2, 4, 4, 64, device=ops.DEVICE, dtype=torch.bfloat16)
    assert ops.takes(x, 2)
    assert not ops.takes(x[:0], 2)
    with torch.autocast(ops.DEVICE, torch.bfloat16):
        assert not ops.takes(x.double(), 2)


def test_takes_half_precision_and_autocast() -> None:
    module, x = projected()
    with Calls() as seen:
        module(x)
    assert seen.counts["iwin::window_attention"] == 1
    module, x = module.float(), x.float()
    with Calls() as seen:
        module(x)
    assert seen.counts["iwin::window_attention"] == 0, "float32 is left to PyTorch"
    with Calls() as seen, torch.autocast(ops.DEVICE, torch.bfloat16):
        assert module(x).dtype == torch.bfloat16
    assert seen.counts["iwin::window_attention"] == 1


@longer
def test_compiles_to_one_graph_forward_and_backward() -> None:
    module, x = projected()
    plain = torch.autograd.grad(module(x).float().square().sum(), list(module.parameters()))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager" if INTERPRETED else "inductor")
    loss = compiled(x).float().square().sum()
    for value, expected in zip(torch.autograd.grad(loss, list(module.parameters())), plain, strict=True):
        torch.testing.assert_close(value, expected, rtol=2e-3, atol=2e-3)


def test_checkpointing_gives_the_same_gradient() -> None:
    module, x = projected()
    x.requires_grad_()
    plain = torch.autograd.grad(module(x).sum(), x)[0]
    with Calls() as seen:
        again = torch.autograd.grad(checkpoint(module, x, use_reentrant=False).sum(), x)[0]
    assert seen.counts["iwin::window_attention"] == 2
    assert torch.equal(again, plain)


class Attention(nn.Module):
    def forward(self, qkv: Tensor) -> Tensor:
        return attend(qkv, SMALL.fill(), SMALL)


def test_exports_as_one_operator_and_models_without_it() -> None:
    exported = torch.export.export(Attention(), (SMALL.qkv(),))
    assert torch.ops.iwin.window_attention.default in {node.target for node in exported.graph.nodes}
    assert torch.equal(exported.module()(SMALL.qkv()), attend(SMALL.qkv(), SMALL.fill(), SMALL))
    module, x = projected()
    exported = torch.export.export(module, (x,))
    assert torch.ops.iwin.window_attention.default not in {node.target for node in exported.graph.nodes}


def test_says_that_it_has_no_second_derivative() -> None:
    qkv = SMALL.qkv().requires_grad_()
    gradient = torch.autograd.grad(attend(qkv, SMALL.fill(), SMALL).square().sum(), qkv, create_graph=True)[0]
    with pytest.raises(RuntimeError, match=r"backward through iwin.window_attention_backward.*no autograd formula"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # PyTorch's own check reads it
@longer
def test_keeps_the_rules_of_operators() -> None:
    shape = SHAPES["beyond the map, some windows full"]
    settings = (list(shape.windows), shape.heads, shape.scale)
    qkv, fill = shape.qkv(), shape.fill()
    out, log_sum = torch.ops.iwin.window_attention(qkv, fill, *settings)
    torch.library.opcheck(ops._forward, (qkv.clone().requires_grad_(), fill.clone().requires_grad_(), *settings))
    torch.library.opcheck(ops._backward, (torch.ones_like(out), qkv, fill, out, log_sum, *settings))


@longer
def test_a_window_of_a_published_model() -> None:
    shape = Shape(1, 4, 7, 7, 1, 32, (1, 1))  # of 8 frames: 196 tokens
    assert_exact_in_float32(shape.qkv(), shape)


# ------------------------------------------------------------------------------------------- in the model


def small_model() -> tuple[IwinTransformer, Tensor]:
    """A backbone of two blocks, the first on a map that is padded to its windows, and a clip."""
    torch.manual_seed(0)
    model = IwinTransformer(
        embed_dim=16, depths=(1, 1), num_heads=(1, 2), patch_size=(2, 4, 4), window_size=(3, 3), drop_path_rate=0
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.to(ops.DEVICE), torch.randn(1, 3, 4, 20, 16).to(ops.DEVICE)


def test_a_model_attends_through_the_kernels() -> None:
    model, clip = small_model()
    weights = list(model.layers.parameters())

    def both(model: nn.Module) -> list[Tensor]:
        out = model(clip)
        return [out.detach(), *torch.autograd.grad(out.float().square().mean(), weights)]

    exact = both(model)
    with torch.autocast(ops.DEVICE, torch.bfloat16):
        with Calls() as seen:
            both(model)
        assert seen.counts["iwin::window_attention"] == 2
        found = both(model)
        assert error(found, exact) < 0.03
        model.set_grad_checkpointing()
        assert all(torch.equal(a, b) for a, b in zip(both(model), found, strict=True))


@longer
def test_a_model_compiles_to_one_graph() -> None:
    model, clip = small_model()
    compiled = torch.compile(
        model.eval(), fullgraph=True, dynamic=False, backend="aot_eager" if INTERPRETED else "inductor"
    )
    with torch.no_grad(), torch.autocast(ops.DEVICE, torch.bfloat16):
        assert error([compiled(clip)], [model(clip)]) < 0.02


def test_a_compiled_model_keeps_the_kernels() -> None:
    model, clip = small_model()
    with torch.no_grad(), torch.autocast(ops.DEVICE, torch.bfloat16):
        assert calls_when_compiled(model.eval(), clip)["iwin.window_attention.default"] == 2


@pytest.mark.gpu
def test_a_model_replays_as_a_cuda_graph() -> None:
    model, clip = small_model()
    replayed = torch.compile(model.eval(), fullgraph=True, dynamic=False, mode="reduce-overhead")
    with torch.no_grad(), torch.autocast(ops.DEVICE, torch.bfloat16):
        for scale in (1.0, 0.5, 2.0, -1.0):  # recorded in the first ones
            assert error([replayed(scale * clip)], [model(scale * clip)]) < 0.02
