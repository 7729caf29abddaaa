from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from iwin.models.block import IwinBlock, WindowAttention
from iwin.models.native.attention import interleaved_attention, takes
from iwin.models.windows import Windows, deinterleave, interleave, windows_of
from tests.models.precisions import error, needs_kernels, precisions

PRECISIONS = precisions("attend")

ALONE = Windows(1, 1, 7, 7)

SHAPES: dict[str, tuple[tuple[int, ...], Windows, int]] = {
    "a single token": ((1, 1, 1, 1), Windows(1, 1, 1, 1), 1),
    "75 tokens: neither keys nor queries fill their last block": ((2, 3, 10, 15), Windows(2, 3, 5, 5), 2),
    "windows of one row": ((1, 2, 4, 6), Windows(4, 3, 1, 2), 3),
    "294 tokens: several blocks of keys": ((1, 6, 14, 7), Windows(2, 1, 7, 7), 1),
    "256 tokens: whole blocks alone": ((1, 4, 8, 8), Windows(1, 1, 8, 8), 2),
    "48 tokens: the last queries fill half of a block": ((2, 3, 4, 8), Windows(1, 2, 4, 4), 1),
    "784 tokens, as of a published model": ((1, 16, 7, 7), Windows(1, 1, 7, 7), 1),
    "beyond the map, all windows alike": ((2, 3, 8, 10), Windows(2, 2, 7, 7), 2),
    "beyond the map, some windows full": ((1, 2, 13, 7), Windows(2, 1, 7, 7), 1),
    "beyond the map, sides of many lengths": ((1, 4, 16, 9), Windows(3, 2, 7, 7), 3),
    "beyond the map, one key more than blocks hold": ((1, 8, 8, 8), Windows(2, 2, 5, 4), 1),
}


def gathered_attention(qkv: Tensor, windows: Windows, heads: int, scale: float, fill: Tensor | None = None) -> Tensor:
    B, T, H, W, channels = qkv.shape
    whole = qkv.new_zeros(B, T, windows.down * windows.rows, windows.across * windows.columns, channels)
    whole = whole if fill is None else whole + fill
    whole[:, :, :H, :W] = qkv
    q, k, v = interleave(whole, windows.counts).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    weights = (scale * q @ k.transpose(-2, -1)).softmax(-1)
    attended = (weights @ v).transpose(1, 2).flatten(2)
    return deinterleave(attended, windows.counts, (*whole.shape[:4], channels // 3))[:, :, :H, :W]


@needs_kernels
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("shape", "windows", "heads"), SHAPES.values(), ids=SHAPES)
def test_attention_equals_its_definition_forward_and_backward(
    shape: tuple[int, ...], windows: Windows, heads: int, dtype: torch.dtype
) -> None:
    assert_equals_definition(shape, windows, heads, 32, dtype)


@needs_kernels
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", ["75 tokens: neither keys nor queries fill their last block", *list(SHAPES)[-4:]])
@pytest.mark.parametrize("head_dim", [5, 16, 24, 31])
def test_attention_of_heads_of_fewer_channels(name: str, head_dim: int, dtype: torch.dtype) -> None:
    assert_equals_definition(*SHAPES[name], head_dim, dtype)


def assert_equals_definition(
    shape: tuple[int, ...], windows: Windows, heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    channels = heads * head_dim
    given = [torch.randn(*shape, 3 * channels).to(dtype), torch.randn(3 * channels).to(dtype)]
    grad = torch.randn(*shape, channels).to(dtype)
    asked = 1 if windows.fit(*shape[2:]) else 2

    def results(attention: Callable[[Tensor, Tensor], Tensor], kind: torch.dtype) -> list[Tensor]:
        inputs = [tensor.to(kind, copy=True).requires_grad_() for tensor in given]
        out = attention(*inputs)
        return [out.detach(), *torch.autograd.grad(out, inputs[:asked], grad.to(kind))]

    def by_definition(qkv: Tensor, fill: Tensor) -> Tensor:
        return gathered_attention(qkv, windows, heads, 0.3, fill)

    def by_kernel(qkv: Tensor, fill: Tensor) -> Tensor:
        return interleaved_attention(qkv, windows, heads=heads, scale=0.3, fill=fill)

    fast, plain, exact = results(by_kernel, dtype), results(by_definition, dtype), results(by_definition, torch.float64)
    for index, (found, simple, right) in enumerate(zip(fast, plain, exact, strict=True)):
        assert found.dtype == dtype
        part = slice(None) if index < 2 else slice(channels, None)  # what is beyond the map asks nothing
        assert error(found[..., part], right[..., part]) < max(2e-6, 1.2 * error(simple[..., part], right[..., part]))
    if asked == 2:
        assert not fast[2][:channels].any()


@needs_kernels
@pytest.mark.parametrize("size", [1e4, 1e6, 1e18])
def test_attention_survives_large_scores(size: float) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(1, 2, 7, 7, 96)
    qkv[..., :64] *= size**0.5
    exact_input, input_ = qkv.double().requires_grad_(), qkv.clone().requires_grad_()
    exact = gathered_attention(exact_input, ALONE, 1, 1.0)
    fast = interleaved_attention(input_, ALONE, heads=1, scale=1.0)
    torch.testing.assert_close(fast.double(), exact, rtol=1e-3, atol=1e-3)
    (exact_grad,) = torch.autograd.grad(exact.sum(), exact_input)
    (fast_grad,) = torch.autograd.grad(fast.sum(), input_)
    assert error(fast_grad[..., 64:], exact_grad[..., 64:]) < 1e-3, "of values"
    assert fast_grad.isfinite().all()


@needs_kernels
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("rate", [0.02, 0.7, 3.0, -0.7])
def test_attention_follows_scores_that_rise_from_key_to_key(rate: float, dtype: torch.dtype) -> None:
    tolerance = 1e-3 if dtype == torch.float32 else 2e-2
    torch.manual_seed(0)
    qkv = torch.randn(1, 6, 7, 7, 96)
    tokens = torch.arange(294.0).view(1, 6, 7, 7)
    qkv[..., 0] = torch.rand(1, 6, 7, 7).round(decimals=1)  # queries that rise at once, late, and never
    qkv[..., 32] = rate * tokens
    qkv = qkv.to(dtype)
    expected = gathered_attention(qkv.double(), ALONE, 1, 1.0)
    fast = interleaved_attention(qkv, ALONE, heads=1, scale=1.0)
    torch.testing.assert_close(fast.double(), expected, rtol=tolerance, atol=tolerance)


@needs_kernels
@pytest.mark.parametrize("height", [7, 6])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_gradients_survive_queries_that_all_keys_are_far_from(dtype: torch.dtype, height: int) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(1, 1, height, 7, 96).to(dtype)  # 49 keys fill up to 56
    qkv[..., :32] += 5
    qkv[..., 32:64] -= 5
    fill = qkv[0, 0, 0, 0]
    exact_input, input_ = qkv.double().requires_grad_(), qkv.clone().requires_grad_()
    scale = 32**-0.5
    (exact,) = torch.autograd.grad(gathered_attention(exact_input, ALONE, 1, scale, fill.double()).sum(), exact_input)
    (fast,) = torch.autograd.grad(interleaved_attention(input_, ALONE, heads=1, scale=scale, fill=fill).sum(), input_)
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(fast.double(), exact, rtol=tolerance, atol=tolerance)


@needs_kernels
def test_maps_and_gradients_of_any_strides_are_taken() -> None:
    torch.manual_seed(0)
    windows = Windows(2, 1, 4, 5)
    qkv = torch.randn(96, 2, 7, 5, 1).movedim(0, -1).movedim(-2, 0).requires_grad_()
    assert not qkv.is_contiguous()
    results = []
    for x in (qkv, qkv.detach().contiguous().requires_grad_()):
        out = interleaved_attention(x, windows, heads=1, scale=0.3)
        results.append((out, torch.autograd.grad(out.sum(), x)[0]))
    for strided, plain in zip(*results, strict=True):
        assert torch.equal(strided, plain)


@needs_kernels
def test_any_number_of_threads_gives_the_same() -> None:
    torch.manual_seed(0)
    qkv, windows = torch.randn(2, 3, 8, 9, 192, requires_grad=True), Windows(2, 2, 7, 7)
    fill = torch.randn(192, requires_grad=True)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out = interleaved_attention(qkv, windows, heads=2, scale=0.3, fill=fill)
            results.append((out, *torch.autograd.grad(out.square().sum(), (qkv, fill))))
    finally:
        torch.set_num_threads(before)
    for alone, together in zip(*results, strict=True):
        assert torch.equal(alone, together)


@needs_kernels
@pytest.mark.parametrize("size", [(10, 9), (14, 14), (16, 30)])
@pytest.mark.parametrize("bias", [True, False])
def test_padding_takes_part_though_it_is_never_there(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    layer = WindowAttention(64, num_heads=2, qkv_bias=bias)
    nn.init.normal_(layer.qkv.weight, std=0.2)
    if bias:
        nn.init.normal_(layer.qkv.bias)
    x, windows = torch.randn(2, 3, *size, 64), windows_of(*size, (7, 7))
    asked: list[torch.Size] = []
    results = []
    for watched in (False, True):
        if watched:  # whoever looks at the projection sees whole windows
            layer.qkv.register_forward_hook(lambda _layer, given, _made: asked.append(given[0].shape))
        out = layer(x, windows)
        results.append((out, *torch.autograd.grad(out.square().sum(), list(layer.parameters()))))
    assert asked == [(2, 3, windows.down * windows.rows, windows.across * windows.columns, 64)]
    for spared, whole in zip(*results, strict=True):
        assert error(spared, whole.double()) < 1e-5


@pytest.mark.filterwarnings("ignore")  # that tracing fixes sizes, and is deprecated
def test_a_model_can_be_traced() -> None:
    block = IwinBlock(32, num_heads=1, window_size=(2, 2)).eval()
    x = torch.randn(1, 2, 4, 4, 32)
    with torch.no_grad():
        traced = torch.jit.trace(block, x)
        torch.testing.assert_close(traced(x), block(x), rtol=1e-4, atol=1e-5)


@needs_kernels
def test_attention_passes_on_what_is_not_a_number() -> None:
    qkv = torch.randn(1, 1, 7, 7, 96)
    qkv[0, 0, 3, 3, 40] = torch.nan
    qkv.requires_grad_()
    out = interleaved_attention(qkv, ALONE, heads=1, scale=1.0)
    assert out.isnan().all()
    assert torch.autograd.grad(out.sum(), qkv)[0][..., :32].isnan().all()


@needs_kernels
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck's own
def test_operators_hold_to_what_pytorch_expects_of_them(dtype: torch.dtype) -> None:
    qkv, fill = torch.randn(1, 2, 4, 5, 96, dtype=dtype), torch.randn(96, dtype=dtype)
    settings = ([2, 3, 2, 2], 1, 0.3)
    out, softmax = torch.ops.iwin.native_attention(qkv, fill, *settings)
    torch.library.opcheck(
        torch.ops.iwin.native_attention_backward.default, (torch.ones_like(out), qkv, fill, out, softmax, *settings)
    )
    given = (qkv.requires_grad_(), fill.requires_grad_())
    torch.library.opcheck(torch.ops.iwin.native_attention.default, (*given, *settings))


@needs_kernels
def test_larger_heads_and_other_precisions_are_left_to_pytorch() -> None:
    x = torch.zeros(1, 1, 7, 7, 64)
    assert takes(x, 2)
    assert takes(x, 4)
    assert not takes(x, 3)
    assert not takes(x, 1)
    assert not takes(x.double(), 2)
    assert not takes(x.half(), 2)
    with torch.autocast("cpu", torch.float16):
        assert not takes(x, 2)


@needs_kernels
def test_block_equals_itself_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = IwinBlock(64, num_heads=2).eval()
    x = torch.randn(2, 3, 10, 15, 64)
    results = []
    for kernels in (None, ()):
        if kernels is not None:
            monkeypatch.setattr("iwin.models.block.FUSED_ATTENTION", kernels)
        output = block(x)
        results.append((output, *torch.autograd.grad(output.square().sum(), list(block.parameters()))))
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)


def test_dropout_on_attention_weights_is_pytorchs() -> None:
    torch.manual_seed(0)
    attention = WindowAttention(64, num_heads=2, attn_drop=0.5)
    x = torch.randn(1, 2, 7, 7, 64)
    assert not torch.equal(attention.train()(x, ALONE), attention(x, ALONE))
    assert torch.equal(attention.eval()(x, ALONE), attention(x, ALONE))
