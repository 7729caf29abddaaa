from typing import Any

import pytest
import torch
import torch.nn.functional as F

import iwin
from iwin.errors import ModelError
from iwin.models.flops import model_cost
from iwin.models.recognizer import IwinImageClassifier, IwinRecognizer
from iwin.models.zoo import build_named
from tests.goldens import assert_golden, fill_by_rule, full_golden, load_json, load_npz, rule_input
from tests.sources import Golden, over_goldens


def nano(**settings: Any) -> IwinRecognizer:
    model = build_named("iwin_nano", **settings)
    assert isinstance(model, IwinRecognizer)
    fill_by_rule(model)
    return model.eval()


# ------------------------------------------------------------------------------------------- many views


@pytest.mark.parametrize("average", ["prob", "score", None])
@over_goldens
def test_views_give_the_original_score(golden: Golden, average: str | None) -> None:
    expected = load_npz(golden("model/multiview_nano.npz"))
    with torch.inference_mode():
        scores = nano().forward_views(rule_input("input/2x6x3x32x56x56"), average=average)  # type: ignore[arg-type]
    assert_golden(expected, f"b2_views6_56_{average}|out", scores, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("average", "max_views"), [("prob", 4), ("score", 4), (None, 4), ("prob", 5)])
@over_goldens
def test_twelve_views_in_chunks_give_the_original_score(golden: Golden, average: str | None, max_views: int) -> None:
    expected = load_npz(golden("model/multiview_nano.npz"))
    with torch.inference_mode():
        views = rule_input("input/1x12x3x32x224x224")
        scores = nano().forward_views(views, average=average, max_views=max_views)  # type: ignore[arg-type]
    assert_golden(expected, f"views12_mtv{max_views}_{average}|out", scores, atol=1e-5)


@pytest.mark.slow
@over_goldens
def test_views_give_the_original_features(golden: Golden) -> None:
    expected = load_npz(golden("model/multiview_nano.npz"))
    with torch.inference_mode():
        features = nano().forward_views(rule_input("input/1x12x3x32x224x224")[:, :6], features=True, max_views=4)
    assert_golden(expected, "views6of12_feature_extraction|out", features, atol=2e-5)


def test_chunks_see_no_more_views_than_asked_for() -> None:
    model, sizes = nano(), []

    def prepare(views: torch.Tensor) -> torch.Tensor:
        sizes.append(len(views))
        return views.float().movedim(-1, 1)

    views = torch.randint(256, (2, 5, 4, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        scores = model.forward_views(views, max_views=4, prepare=prepare)
    assert sizes == [4, 4, 2]
    assert scores.shape == (2, 400)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))


def test_unknown_average_is_refused() -> None:
    with pytest.raises(ModelError, match="'max'"):
        nano().forward_views(torch.zeros(1, 2, 3, 4, 32, 32), average="max")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("use_checkpoint", [False, True])
@pytest.mark.parametrize("case", ["2x1x3x32x56x56", "1x1x3x32x112x112"])
@over_goldens
def test_gradients_are_the_original_ones(golden: Golden, case: str, use_checkpoint: bool) -> None:
    expected = load_json(golden("model/grads_nano.json"))[case]
    model = nano(use_checkpoint=use_checkpoint)
    loss = F.cross_entropy(model(rule_input(expected["input_name"])[:, 0]), torch.tensor(expected["labels"]))
    loss.backward()
    assert loss.item() == pytest.approx(expected["losses"]["loss_cls"], abs=2e-6)
    arrays = load_npz(golden("model/grads_nano.npz"))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.norm().item() == pytest.approx(expected["grad_norm"][name], rel=2e-5), name
        key = f"{case}|grad:{name}"
        if key in arrays:
            assert_golden(arrays, key, parameter.grad, atol=2e-5)


@over_goldens
def test_label_smoothing_is_the_original_one(golden: Golden) -> None:
    expected = load_json(golden("model/grads_nano.json"))["label_smoothing_0.1"]
    model = nano()
    logits = model(rule_input(expected["input_name"])[:, 0])
    loss = F.cross_entropy(logits, torch.tensor(expected["labels"]), label_smoothing=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(expected["losses"]["loss_cls"], abs=2e-6)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.norm().item() == pytest.approx(expected["grad_norm"][name], rel=2e-5), name


def test_checkpointing_can_be_switched() -> None:
    model = nano()
    model.set_grad_checkpointing()
    assert all(stage.use_checkpoint for stage in model.backbone.layers)
    model.set_grad_checkpointing(False)
    assert not any(stage.use_checkpoint for stage in model.backbone.layers)


# ------------------------------------------------------------------------------------------- the common contract


@pytest.mark.parametrize("name", ["iwin_nano", "iwin_image_nano"])
def test_models_share_a_contract(name: str) -> None:
    model = iwin.create_model(name, num_classes=7).eval()
    inputs = torch.randn(2, 3, 64, 64) if isinstance(model, IwinImageClassifier) else torch.randn(2, 3, 4, 64, 64)
    with torch.inference_mode():
        features = model.forward_features(inputs)
        assert features.shape == (2, 192, features.shape[2], 2, 2)
        assert model.forward_head(features, pre_logits=True).shape == (2, 192)
        torch.testing.assert_close(model.forward_head(features), model(inputs))
        assert model(inputs).shape == (2, 7)
        model.reset_classifier(3)
        assert model(inputs).shape == (2, 3)


def test_list_models_names_what_create_model_makes() -> None:
    names = iwin.list_models()
    assert names[:5] == ["iwin_nano", "iwin_tiny", "iwin_small", "iwin_base", "iwin_large"]
    assert "iwin_image_tiny" in names


def test_unknown_model_is_refused_with_a_hint() -> None:
    with pytest.raises(ModelError, match="did you mean 'iwin_tiny'"):
        iwin.create_model("iwin_tinny")


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(ModelError, match="drop_pth_rate"):
        iwin.create_model("iwin_nano", drop_pth_rate=0.1)


# ------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    "case",
    [
        "nano_224_w7",
        "nano_224_ape",
        "nano_384_w12",
        pytest.param("nano_512_w16", marks=pytest.mark.slow),
        pytest.param("nano_1024_w16", marks=pytest.mark.slow),
        pytest.param("tiny_224_w7", marks=pytest.mark.slow),
        pytest.param("small_224_w7_heads_3_4_8_16", marks=pytest.mark.slow),
        pytest.param("small_224_w7_heads_3_6_12_24", marks=pytest.mark.slow),
        pytest.param("tiny_384_w12", marks=pytest.mark.slow),
    ],
)
@over_goldens
def test_image_models_give_the_original_outputs(golden: Golden, case: str) -> None:
    description = load_json(golden("model/cls2d_outputs.json"))["cases"][case]
    expected = load_npz(golden("model/cls2d_outputs.npz"))
    args = description["args"]
    model = build_named(
        f"iwin_image_{case.split('_')[0]}",
        image_size=args["img_size"],
        window_size=args["window_size"],
        num_heads=tuple(args["num_heads"]),
        absolute_positions=args["ape"],
    ).eval()
    assert isinstance(model, IwinImageClassifier)
    fill_by_rule(model)
    assert sum(p.numel() for p in model.parameters()) == description["params"]
    with torch.inference_mode():
        features = model.forward_features(rule_input(description["input_name"]))
        assert_golden(expected, f"{case}|features", model.forward_head(features, pre_logits=True), atol=2e-5)
        assert_golden(expected, f"{case}|logits", model.forward_head(features), atol=2e-5)


@pytest.mark.parity
def test_image_models_have_the_original_keys() -> None:
    description = load_json(full_golden("model/cls2d_keys.json"))
    for name, config in description["configs"].items():
        with torch.device("meta"):
            model = IwinImageClassifier(
                num_classes=config["num_classes"],
                image_size=config["img_size"],
                window_size=config["window"],
                embed_dim=config["embed_dim"],
                depths=tuple(config["depths"]),
                num_heads=tuple(config["num_heads"]),
                absolute_positions=config["ape"],
            )
        keys = {key: list(value.shape) for key, value in model.state_dict().items()}
        assert keys == description["key_lists"][config["keys"]], name


# ------------------------------------------------------------------------------------------- cost


@over_goldens
def test_cost_is_the_published_one_and_the_whole(golden: Golden) -> None:
    expected = load_json(golden("model/flops.json"))["models"]
    for name, short in [("iwin_nano", "nano"), ("iwin_tiny", "T"), ("iwin_small", "S"), ("iwin_base", "B")]:
        with torch.device("meta"):
            model = build_named(name)
        cost = model_cost(model, frames=32, height=224, width=224)
        assert cost.params == expected[short]["params_total"]
        assert cost.macs == expected[short]["analytic_macs_total"]
        assert cost.published == expected[short]["mmcv_get_flops"]["flops"]
