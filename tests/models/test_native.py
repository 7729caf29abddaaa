import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwin.models.iwin import IwinBlock, WindowAttention
from iwin.models.native.attention import SOURCE, interleaved_attention, takes
from iwin.models.native.linear import Linear, infers
from iwin.models.windows import deinterleave, interleave
from iwin.native import library

needs_kernels = pytest.mark.skipif(library(SOURCE) is None, reason="the kernels cannot be compiled here")


def gathered_attention(qkv: Tensor, counts: tuple[int, int], heads: int, scale: float) -> Tensor:
    B, T, H, W, channels = qkv.shape
    q, k, v = interleave(qkv, counts).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    weights = (scale * q @ k.transpose(-2, -1)).softmax(-1)
    return deinterleave((weights @ v).transpose(1, 2).flatten(2), counts, (B, T, H, W, channels // 3))


@needs_kernels
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 5e-2)])
@pytest.mark.parametrize(
    ("shape", "counts", "heads"),
    [
        ((1, 1, 1, 1), (1, 1), 1),  # a single token
        ((2, 3, 10, 15), (2, 3), 2),  # 75 tokens: neither keys nor queries fill their last block
        ((1, 2, 4, 6), (4, 3), 3),  # windows of one row
        ((1, 6, 14, 7), (2, 1), 1),  # 294 tokens: several blocks of keys
    ],
)
def test_attention_equals_its_definition_forward_and_backward(
    shape: tuple[int, ...], counts: tuple[int, int], heads: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(*shape, 3 * heads * 32).to(dtype)
    grad = torch.randn(*shape, heads * 32).to(dtype)
    exact_input, input_ = qkv.double().requires_grad_(), qkv.clone().requires_grad_()
    exact = gathered_attention(exact_input, counts, heads, 0.3)
    fast = interleaved_attention(input_, counts, heads=heads, scale=0.3)
    (exact_grad,) = torch.autograd.grad(exact, exact_input, grad.double())
    (fast_grad,) = torch.autograd.grad(fast, input_, grad)
    assert fast.dtype == fast_grad.dtype == dtype
    torch.testing.assert_close(fast.double(), exact, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(fast_grad.double(), exact_grad, rtol=tolerance, atol=tolerance)


@needs_kernels
@pytest.mark.parametrize("size", [1e4, 1e18])
def test_attention_survives_large_scores(size: float) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(1, 2, 7, 7, 96)
    qkv[..., :64] *= size**0.5
    expected = gathered_attention(qkv.double(), (1, 1), 1, 1.0)
    torch.testing.assert_close(
        interleaved_attention(qkv, (1, 1), heads=1, scale=1.0).double(), expected, rtol=1e-3, atol=1e-3
    )


@needs_kernels
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("rate", [0.02, 0.7, 3.0, -0.7])
def test_attention_follows_scores_that_rise_from_key_to_key(rate: float, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(1, 6, 7, 7, 96)
    tokens = torch.arange(294.0).view(1, 6, 7, 7)
    qkv[..., 0] = torch.rand(1, 6, 7, 7).round(decimals=1)  # queries that rise at once, late, and never
    qkv[..., 32] = rate * tokens
    qkv = qkv.to(dtype)
    expected = gathered_attention(qkv.double(), (1, 1), 1, 1.0)
    fast = interleaved_attention(qkv, (1, 1), heads=1, scale=1.0)
    torch.testing.assert_close(fast.double(), expected, rtol=tolerance, atol=tolerance)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_survive_queries_that_all_keys_are_far_from(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(1, 1, 7, 7, 96).to(dtype)  # 49 keys fill up to 56
    qkv[..., :32] += 5
    qkv[..., 32:64] -= 5
    exact_input, input_ = qkv.double().requires_grad_(), qkv.clone().requires_grad_()
    scale = 32**-0.5
    (exact,) = torch.autograd.grad(gathered_attention(exact_input, (1, 1), 1, scale).sum(), exact_input)
    (fast,) = torch.autograd.grad(interleaved_attention(input_, (1, 1), heads=1, scale=scale).sum(), input_)
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(fast.double(), exact, rtol=tolerance, atol=tolerance)


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
    assert interleaved_attention(qkv, (1, 1), heads=1, scale=1.0).isnan().all()


@needs_kernels
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # opcheck's own
def test_operators_hold_to_what_pytorch_expects_of_them() -> None:
    qkv = torch.randn(1, 2, 4, 6, 96, requires_grad=True)
    torch.library.opcheck(torch.ops.iwin.native_attention.default, (qkv, [2, 3], 1, 0.3))


@needs_kernels
def test_heads_of_another_size_and_other_precisions_are_left_to_pytorch() -> None:
    x = torch.zeros(1, 1, 7, 7, 64)
    assert takes(x, 2)
    assert not takes(x, 4)
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
            monkeypatch.setattr("iwin.models.iwin.FUSED_ATTENTION", kernels)
        output = block(x)
        results.append((output, *torch.autograd.grad(output.square().sum(), list(block.parameters()))))
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)


def test_dropout_on_attention_weights_is_pytorchs() -> None:
    torch.manual_seed(0)
    attention = WindowAttention(64, num_heads=2, attn_drop=0.5)
    x = torch.randn(1, 2, 7, 7, 64)
    assert not torch.equal(attention.train()(x, (1, 1)), attention(x, (1, 1)))
    assert torch.equal(attention.eval()(x, (1, 1)), attention(x, (1, 1)))


# ------------------------------------------------------------------------------------------- linear layers


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


@pytest.mark.parametrize("tokens", [-1, 0, 1])
def test_a_block_gives_the_same_in_slices_and_leaves_its_maps_alone(
    tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    block = IwinBlock(32, num_heads=1, window_size=(1, 1)).eval()
    seen: list[tuple[Tensor, Tensor]] = []

    def norm(x: Tensor) -> Tensor:
        seen.append((x, x.clone()))
        return F.layer_norm(x, (32,), block.norm2.weight, block.norm2.bias)

    monkeypatch.setattr(block.norm2, "forward", norm)
    x = torch.randn(2, 1, 1, 1024 * torch.get_num_threads() + tokens, 32)
    given = x.clone()
    whole = block(x)
    assert not infers(x)
    with torch.no_grad():
        assert infers(x)
        torch.testing.assert_close(block(x), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, given)
    assert len(seen) > 2
    assert all(torch.equal(now, then) for now, then in seen)


@pytest.mark.parametrize("name", ["norm2", "mlp", "mlp.fc1"])
def test_who_hooks_into_a_layer_sees_whole_maps(name: str) -> None:
    block, x = IwinBlock(32, num_heads=1).eval(), torch.randn(1, 2, 64, 64, 32)
    seen: list[torch.Size] = []
    block.get_submodule(name).register_forward_hook(lambda _module, given, _made: seen.append(given[0].shape))
    with torch.no_grad():
        assert infers(x)
        block(x)
    assert seen == [x.shape]


def test_stochastic_depth_without_gradients_leaves_out_whole_samples() -> None:
    torch.manual_seed(0)
    block = IwinBlock(32, num_heads=1, drop_path=0.5).train()
    x = torch.randn(64, 1, 1, 2, 32)
    with torch.no_grad():
        changed = (block(x) != x).flatten(1)
    assert ((changed.sum(1) == 0) | changed.all(1)).all()
    assert 0 < changed.all(1).sum() < 64
