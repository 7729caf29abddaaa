import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from iwin.bench.subjects import load_reference
from iwin.errors import ModelError
from iwin.models.block import DropPath, IwinBlock, WindowAttention
from iwin.models.iwin import Downsample, IwinTransformer, PatchEmbed
from iwin.models.recognizer import IwinRecognizer
from iwin.models.windows import Windows, deinterleave, interleave
from iwin.models.zoo import build_named
from tests.goldens import assert_golden, fill_by_rule, full_golden, load_json, load_npz, rule_input, rule_weight
from tests.sources import Golden, over_goldens

NAMES = {"iwin_nano": "nano", "iwin_tiny": "T", "iwin_small": "S", "iwin_base": "B", "iwin_large": "L"}


def recognizer(name: str, **settings: Any) -> IwinRecognizer:
    model = build_named(name, **settings)
    assert isinstance(model, IwinRecognizer)
    fill_by_rule(model)
    return model.eval()


# ------------------------------------------------------------------------------------------- goldens


@over_goldens
def test_rule_gives_the_original_weights_and_inputs(golden: Golden) -> None:
    for name, expected in load_json(golden("model/rule_check.json")).items():
        value = rule_input(name) if name.startswith("input/") else rule_weight(name, tuple(expected["shape"]))
        assert hashlib.sha256(value.numpy().tobytes()).hexdigest() == expected["sha256_of_float32_le_bytes"], name


@pytest.mark.parametrize("name", ["iwin_nano", "iwin_tiny"])
@over_goldens
def test_state_dict_has_the_original_keys_shapes_and_order(golden: Golden, name: str) -> None:
    expected = load_json(golden(f"model/keys_{NAMES[name]}.json"))
    with torch.device("meta"):
        model = build_named(name)
    assert [(key, list(value.shape)) for key, value in model.state_dict().items()] == list(
        expected["state_dict"].items()
    )
    assert sum(p.numel() for p in model.parameters()) == expected["params_total"]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["iwin_small", "iwin_base", "iwin_large"])
def test_larger_state_dicts_have_the_original_keys(name: str) -> None:
    expected = load_json(full_golden(f"model/keys_{NAMES[name]}.json"))
    with torch.device("meta"):
        state = build_named(name).state_dict()
    assert [(key, list(value.shape)) for key, value in state.items()] == list(expected["state_dict"].items())


@pytest.mark.parametrize("case", ["224", "200x232", "180x250", "56x56", "portrait320x180", "batch2_112", "32x224_wide"])
@over_goldens
def test_nano_gives_the_original_outputs(golden: Golden, case: str) -> None:
    expected = load_npz(golden("model/outputs_nano.npz"))
    clips = rule_input(load_json(golden("model/outputs_nano.json"))["cases"][case]["input_name"])
    check_outputs(recognizer("iwin_nano"), clips, case, expected)


@pytest.mark.parametrize("case", ["56x56", pytest.param("224", marks=pytest.mark.slow)])
@over_goldens
def test_tiny_gives_the_original_outputs(golden: Golden, case: str) -> None:
    expected = load_npz(golden("model/outputs_T.npz"))
    clips = rule_input(load_json(golden("model/outputs_T.json"))["cases"][case]["input_name"])
    check_outputs(recognizer("iwin_tiny"), clips, case, expected)


def check_outputs(
    model: IwinRecognizer, clips: torch.Tensor, case: str, expected: dict[str, "np.typing.NDArray[np.float32]"]
) -> None:
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, channels_last: bool = True) -> object:
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            seen[name] = output.permute(0, 4, 1, 2, 3) if channels_last else output

        return hook

    model.backbone.patch_embed.register_forward_hook(keep("patch_embed"))  # type: ignore[arg-type]
    model.backbone.pos_drop.register_forward_hook(keep("after_time_embed"))  # type: ignore[arg-type]
    for index, stage in enumerate(model.backbone.layers):
        stage.register_forward_hook(keep(f"stage{index}"))  # type: ignore[arg-type]
    with torch.inference_mode():
        seen["backbone"] = model.backbone(clips)
        seen["logits"] = model(clips)
        seen["forward_test_prob"] = model.forward_views(clips[:, None])
    tolerances = {"logits": 1e-5, "forward_test_prob": 1e-6}
    compared = 0
    for name, value in seen.items():
        if f"{case}|{name}" in expected:
            assert_golden(expected, f"{case}|{name}", value, atol=tolerances.get(name, 2e-5))
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("frames", [1, 2, 31, 32])
@over_goldens
def test_clip_lengths_that_the_original_runs_give_its_outputs(golden: Golden, frames: int) -> None:
    expected = load_npz(golden("model/cliplen_window_nano.npz"))
    model = recognizer("iwin_nano")
    clips = rule_input(f"input/1x3x{frames}x56x56")
    with torch.inference_mode():
        assert_golden(expected, f"T{frames}|backbone", model.backbone(clips), atol=2e-5)
        assert_golden(expected, f"T{frames}|logits", model(clips), atol=1e-5)


@pytest.mark.parametrize("window", [(7, 7), (14, 14), (7, 5)])
@pytest.mark.parametrize("side", [56, 112, 224])
@over_goldens
def test_windows_give_the_original_outputs(golden: Golden, window: tuple[int, int], side: int) -> None:
    expected = load_npz(golden("model/cliplen_window_nano.npz"))
    model = recognizer("iwin_nano", window_size=window)
    with torch.inference_mode():
        features = model.backbone(rule_input(f"input/1x3x32x{side}x{side}"))
    assert_golden(expected, f"window_{window[0]}-{window[1]}_{side}x{side}|backbone", features, atol=2e-5)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "block_dw": lambda: IwinBlock(24, num_heads=2),
    "block_nodw": lambda: IwinBlock(24, num_heads=2, dwconv=False),
    "block_small": lambda: IwinBlock(24, num_heads=3),
    "block_qkscale": lambda: IwinBlock(24, num_heads=2, qkv_bias=False, qk_scale=0.5),
    "downsample_odd": lambda: Downsample(24),
    "downsample_even": lambda: Downsample(24),
    "downsample_oddH": lambda: Downsample(24),
}


@pytest.mark.parametrize("case", MODULES)
@over_goldens
def test_modules_give_the_original_outputs(golden: Golden, case: str) -> None:
    description = load_json(golden("model/modules.json"))["cases"][case]
    module = MODULES[case]().eval()
    assert {key: list(value.shape) for key, value in module.state_dict().items()} == description["state_dict"]
    fill_by_rule(module)
    with torch.inference_mode():
        output = module(rule_input(description["input_name"]))
    assert_golden(load_npz(golden("model/modules.npz")), f"{case}|out", output, atol=2e-5)


@over_goldens
def test_attention_gives_the_original_outputs(golden: Golden) -> None:
    module = WindowAttention(24, num_heads=3).eval()
    fill_by_rule(module)
    windows = rule_input(load_json(golden("model/modules.json"))["cases"]["attn"]["input_name"])
    with torch.inference_mode():
        output = module(windows[:, :, None, None], Windows(1, 1, 1, 1)).flatten(1, 3)
    assert_golden(load_npz(golden("model/modules.npz")), "attn|out", output, atol=2e-5)


@pytest.mark.parametrize("shape", ["1x3x5x10x13", "2x3x4x8x12", "1x3x1x7x9"])
@over_goldens
def test_patch_embedding_pads_like_the_original(golden: Golden, shape: str) -> None:
    norm = shape != "1x3x1x7x9"
    module = PatchEmbed(24, norm=norm).eval()
    fill_by_rule(module)
    with torch.inference_mode():
        output = module(rule_input(f"input/{shape}")).permute(0, 4, 1, 2, 3)
    key = f"patch_embed_{shape}_norm{int(norm)}|out"
    assert_golden(load_npz(golden("model/modules.npz")), key, output, atol=2e-5)


@over_goldens
def test_windows_hold_the_original_positions(golden: Golden) -> None:
    maps = load_npz(golden("model/interleave_maps.npz"))
    for key in [key for key in maps if key.endswith("|window_partition_of_rearranged")]:
        shape_text = key.split("|")[0]
        B, T, H, W = (int(part[1:]) for part in shape_text.split("_")[:4])
        counts = tuple(int(n) for n in shape_text.split("_g")[1].split("x"))
        positions = torch.arange(B * T * H * W).view(B, T, H, W, 1)
        windows = interleave(positions, (counts[0], counts[1]))
        assert windows[..., 0].tolist() == maps[key].tolist()
        assert torch.equal(deinterleave(windows, (counts[0], counts[1]), positions.shape), positions)


# ------------------------------------------------------------------------------------------- the fast path


@pytest.mark.parametrize("size", [(3, 10, 15), (2, 14, 14), (4, 3, 5), (1, 7, 21)])
@pytest.mark.parametrize("dwconv", [True, False])
def test_block_equals_the_textbook_form_forward_and_backward(size: tuple[int, int, int], dwconv: bool) -> None:
    torch.manual_seed(0)
    block = IwinBlock(24, num_heads=3, dwconv=dwconv).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    plain = load_reference().Block(24, 3, dwconv=dwconv).double()
    plain.load_state_dict(block.state_dict())
    assert_equal_with_gradients(block, plain, torch.randn(2, *size, 24, dtype=torch.float64), tolerance=1e-10)


@pytest.mark.parametrize("size", [(32, 60, 36), (5, 33, 70)])
@pytest.mark.parametrize("embed_dim", [24, 32, 40])  # also of a head: 40 are left to PyTorch's attention
def test_recognizer_equals_the_textbook_form_forward_and_backward(size: tuple[int, int, int], embed_dim: int) -> None:
    settings: dict[str, Any] = {
        "embed_dim": embed_dim,
        "depths": (1, 1, 2, 1),
        "num_heads": (1, 2, 4, 8),
        "num_frames": size[0],
    }
    model = IwinRecognizer(IwinTransformer(**settings, drop_path_rate=0.0), num_classes=7)
    fill_by_rule(model)
    plain = load_reference().ReferenceRecognizer(**settings, num_classes=7)
    plain.load_state_dict(model.state_dict())
    assert_equal_with_gradients(model.eval(), plain, torch.randn(2, 3, *size), tolerance=2e-4)


def assert_equal_with_gradients(fast: nn.Module, plain: nn.Module, x: torch.Tensor, *, tolerance: float) -> None:
    x.requires_grad_()
    outputs = fast(x), plain(x)
    upstream = torch.randn_like(outputs[0])
    gradients = [
        torch.autograd.grad(output, [x, *(parameter for _, parameter in sorted(model.named_parameters()))], upstream)
        for output, model in zip(outputs, (fast, plain), strict=True)
    ]
    torch.testing.assert_close(*outputs, rtol=tolerance, atol=tolerance)
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
    with torch.no_grad():  # the way without gradients is another one
        torch.testing.assert_close(fast(x), outputs[1].detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kernels", [True, False])
def test_every_parameter_has_its_gradient_in_bf16_too(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over thousands of tokens are not added up in bf16: PyTorch's LayerNorm was off by a fifth here."""
    if not kernels:
        monkeypatch.setattr("iwin.models.native.common.has", lambda *_: False)
    torch.manual_seed(0)
    model = IwinTransformer(embed_dim=32, depths=(1, 1), num_heads=(1, 2), num_frames=8, drop_path_rate=0.0)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            nn.init.normal_(parameter, mean=float(isinstance(module, nn.LayerNorm)), std=0.1)
    clips, upstream = torch.randn(2, 3, 8, 128, 128), 1 + torch.randn(2, 64, 4, 16, 16)
    gradients = []
    for mixed in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            features = model(clips)
        gradients.append(torch.autograd.grad(features, list(model.parameters()), upstream))
    for (name, _), exact, found in zip(model.named_parameters(), *gradients, strict=True):
        assert (found - exact).norm() < 0.02 * exact.norm(), name


@pytest.mark.slow
@pytest.mark.timeout(900)  # compilers of two graphs and a machine that may have other work
def test_compiles_to_one_graph() -> None:
    model = recognizer("iwin_nano")
    clips = rule_input("input/1x3x32x56x56")
    compiled = torch.compile(model, fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(clips), model(clips), rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 8, 16, 31, 32, 48, 64])
def test_any_clip_length_runs(frames: int) -> None:
    features = recognizer("iwin_nano").backbone(torch.randn(1, 3, frames, 32, 48))
    steps = 16 if frames == 1 else math.ceil(frames / 2)  # a still is repeated over the embedded length
    assert features.shape == (1, 192, steps, 1, 2)
    assert features.isfinite().all()


def test_time_embedding_is_interpolated_between_its_neighbours() -> None:
    model = IwinTransformer(embed_dim=24, depths=(1,), num_heads=(1,), num_frames=8)
    assert model.time_embed is not None
    nn.init.zeros_(model.time_embed)
    with torch.no_grad():
        model.time_embed[0, :, :, 0, 0] = torch.arange(4.0)
    embedding = model._time_embedding(8)[0, :, 0, 0, 0]
    assert embedding.tolist() == [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]


# ------------------------------------------------------------------------------------------- settings


@over_goldens
def test_drop_path_rates_are_the_original_ones(golden: Golden) -> None:
    misc = load_json(golden("model/misc.json"))
    for size in ("nano", "T", "S"):
        for rate in (0.1, 0.2, 0.3):
            name = next(name for name, short in NAMES.items() if short == size)
            with torch.device("meta"):
                model = build_named(name, drop_path_rate=rate)
            blocks = [block for block in model.modules() if isinstance(block, IwinBlock)]
            rates = [block.drop_path.p or "Identity" for block in blocks]
            assert rates == misc[f"drop_path_{size}_{rate}"]


def test_drop_path_leaves_out_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3)
    dropped = DropPath(0.25).train()(x)
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(dropped))
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(DropPath(0.25).eval()(x), x)


@pytest.mark.parametrize("stages", [-1, 0, 1, 2, 3, 4])
@over_goldens
def test_frozen_stages_are_the_original_ones(golden: Golden, stages: int) -> None:
    expected = load_json(golden("model/misc.json"))[f"frozen_stages_{stages}"]
    model = build_named("iwin_nano", frozen_stages=stages)
    assert isinstance(model, IwinRecognizer)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert len(frozen) == expected["frozen"]
    assert all(name.startswith(tuple(expected["frozen_prefixes"])) for name in frozen)
    assert model.train() is model
    assert model.backbone.train() is model.backbone
    assert model.backbone.eval() is model.backbone
    model.train()
    still = {name for name, module in model.named_modules() if not module.training}
    assert set(expected["eval_modules_after_train"]) <= still


@over_goldens
def test_fresh_weights_are_drawn_like_the_original_ones(golden: Golden) -> None:
    expected = load_json(golden("model/misc.json"))["init_T_pretrained_None"]["stats"]
    torch.manual_seed(1)
    state = build_named("iwin_tiny").state_dict()
    assert len(expected) > 20
    for name, stats in expected.items():
        value = state[name]
        error = 6 * max(stats["std"], 1e-9) / math.sqrt(value.numel())  # six standard errors of the mean
        assert abs(value.mean().item() - stats["mean"]) <= 2 * error, name
        assert value.std(correction=0).item() == pytest.approx(stats["std"], rel=0.2), name


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"depths": (2, 2)}, "same stages"),
        ({"frozen_stages": 5}, "frozen_stages is 5"),
        ({"num_heads": (5, 6, 12, 24)}, "do not divide"),
        ({"qk_scale": -1.0}, "qk_scale is -1.0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], hint: str) -> None:
    with pytest.raises(ModelError, match=hint):
        IwinTransformer(**settings)


def test_input_of_another_shape_is_refused() -> None:
    with pytest.raises(ModelError, match=r"\(B, 3, T, H, W\)"):
        recognizer("iwin_nano")(torch.zeros(3, 8, 32, 32))
