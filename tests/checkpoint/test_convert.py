from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iwin.build import create_model
from iwin.checkpoint.convert import inflate, load_weights
from iwin.checkpoint.io import read_weights, save_weights
from iwin.errors import CheckpointError
from iwin.models.recognizer import IwinImageClassifier, IwinRecognizer
from iwin.models.zoo import build_named
from tests.goldens import assert_golden, fill_by_rule, load_json, load_npz, rule_input, rule_weight
from tests.sources import Golden, over_goldens


def recognizer(**settings: Any) -> IwinRecognizer:
    model = build_named("iwin_nano", **settings)
    assert isinstance(model, IwinRecognizer)
    return model.eval()


def image_state(**settings: Any) -> dict[str, Tensor]:
    model = build_named("iwin_image_nano", **settings)
    fill_by_rule(model)
    return model.state_dict()


# ------------------------------------------------------------------------------------------- inflation


@pytest.mark.parametrize(("case", "settings"), [("224w7", {}), ("1024w16", {"image_size": 1024, "window_size": 16})])
@over_goldens
def test_an_inflated_image_model_gives_the_original_outputs(
    golden: Golden, case: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    description = load_json(golden("model/inflate_nano.json"))[case]
    expected = load_npz(golden("model/inflate_nano.npz"))
    torch.save({"model": image_state(**settings)}, tmp_path / "image.pth")
    model = recognizer()
    report = load_weights(model, tmp_path / "image.pth")
    assert report.layout == "image"
    assert len(report.loaded) == description["matched"]
    assert set(report.unused) == set(description["unexpected_from_2d"])
    backbone_missing = [name for name in report.missing if name.startswith("backbone.")]
    assert backbone_missing == ["backbone.time_embed"]
    weight = model.backbone.patch_embed.proj.weight
    assert_golden(expected, f"{case}|patch_embed.proj.weight", weight, atol=1e-7)
    with torch.no_grad():
        for name, parameter in model.cls_head.named_parameters():
            parameter.copy_(rule_weight(f"cls_head.{name}", tuple(parameter.shape)))
        for size in ("56x56", "180x250"):
            clips = rule_input(f"input/1x3x32x{size}")
            assert_golden(expected, f"{case}_{size}|backbone", model.backbone(clips), atol=2e-5)
            assert_golden(expected, f"{case}_{size}|logits_with_rule_head", model(clips), atol=1e-5)


def test_a_still_clip_has_the_image_models_features(tmp_path: Path) -> None:
    torch.save({"model": image_state()}, tmp_path / "image.pth")
    video, image = recognizer(), create_model("iwin_image_nano").eval()
    load_weights(video, tmp_path / "image.pth")
    assert isinstance(image, IwinImageClassifier)
    load_weights(image, tmp_path / "image.pth", whole=True)
    still = rule_input("input/1x3x224x224")
    with torch.inference_mode():
        features = video.forward_features(still[:, :, None].expand(-1, -1, 32, -1, -1))
        expected = image.forward_features(still).expand_as(features)
    torch.testing.assert_close(features, expected, rtol=0, atol=2e-5)


@over_goldens
def test_absolute_positions_are_left_out_as_the_original_does(golden: Golden, tmp_path: Path) -> None:
    expected = load_json(golden("model/inflate_nano.json"))["ape_checkpoint_unexpected"]
    torch.save({"model": image_state(absolute_positions=True)}, tmp_path / "image.pth")
    report = load_weights(recognizer(), tmp_path / "image.pth")
    assert set(report.unused) == set(expected)


@over_goldens
def test_what_fails_in_the_original_and_loads_here(golden: Golden, tmp_path: Path) -> None:
    """The tensors tell what a file holds; the original asks `pretrained2d`, and the file's outermost key."""
    theirs = load_json(golden("model/inflate_nano.json"))
    assert theirs["pretrained_without_model_key"].startswith("KeyError")
    torch.save(image_state(), tmp_path / "image.pth")
    assert load_weights(recognizer(), tmp_path / "image.pth").layout == "image"
    assert theirs["pretrained2d_False_with_recognizer_ckpt_loads_backbone"] is False  # it does not even say so
    torch.save({"state_dict": whole_state()}, tmp_path / "recognizer.pth")
    report = load_weights(recognizer(num_classes=5), tmp_path / "recognizer.pth")
    assert not [name for name in report.missing if name.startswith("backbone.")]


def test_inflation_divides_by_the_patch_length() -> None:
    projection = torch.randn(4, 3, 2, 2)
    assert torch.equal(inflate(projection, 2).sum(2), projection)


# ------------------------------------------------------------------------------------------- layouts


def whole_state() -> dict[str, Tensor]:
    model = recognizer()
    fill_by_rule(model)
    return model.state_dict()


LAYOUTS: dict[str, Callable[[dict[str, Tensor]], dict[str, Any]]] = {
    "plain": lambda state: state,
    "mmcv": lambda state: {"meta": {"epoch": 30}, "state_dict": state, "optimizer": {}},
    "wrapped": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    "model": lambda state: {"model": state},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_recogniser_loads_whole(layout: str, tmp_path: Path) -> None:
    state = whole_state()
    torch.save(LAYOUTS[layout](state), tmp_path / "weights.pth")
    model = recognizer()
    report = load_weights(model, tmp_path / "weights.pth", whole=True)
    assert report.layout == "recognizer"
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_safetensors_keep_weights_and_metadata(tmp_path: Path) -> None:
    state = whole_state()
    save_weights(tmp_path / "weights.safetensors", state, {"classes": "[]"})
    weights = read_weights(tmp_path / "weights.safetensors")
    assert weights.metadata["classes"] == "[]"
    assert all(torch.equal(weights.state[name], value) for name, value in state.items())


def test_a_bare_video_backbone_loads(tmp_path: Path) -> None:
    state = {name.removeprefix("backbone."): value for name, value in whole_state().items() if "backbone" in name}
    torch.save(state, tmp_path / "backbone.pth")
    report = load_weights(recognizer(), tmp_path / "backbone.pth")
    assert report.layout == "backbone"
    assert set(report.missing) == {"cls_head.fc_cls.weight", "cls_head.fc_cls.bias"}


def test_another_number_of_classes_keeps_the_fresh_classifier(tmp_path: Path) -> None:
    torch.save(whole_state(), tmp_path / "weights.pth")
    model = recognizer(num_classes=5)
    fresh = model.cls_head.fc_cls.weight.clone()
    report = load_weights(model, tmp_path / "weights.pth")
    assert set(report.mismatched) == {"cls_head.fc_cls.weight", "cls_head.fc_cls.bias"}
    assert torch.equal(model.cls_head.fc_cls.weight, fresh)
    assert "of another shape" in str(report)


def test_the_time_embedding_of_another_clip_length_is_interpolated(tmp_path: Path) -> None:
    torch.save(whole_state(), tmp_path / "weights.pth")
    model = recognizer(num_frames=64)
    report = load_weights(model, tmp_path / "weights.pth")
    assert report.resized == ("backbone.time_embed",)
    assert model.backbone.time_embed is not None
    assert model.backbone.time_embed.shape[2] == 32


# ------------------------------------------------------------------------------------------- refusals


def test_weights_of_another_size_are_refused_and_change_nothing(tmp_path: Path) -> None:
    torch.save({name: value[..., :1] for name, value in whole_state().items()}, tmp_path / "weights.pth")
    model = recognizer()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"fills \d+% of the backbone"):
        load_weights(model, tmp_path / "weights.pth")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_partial_checkpoint_is_refused_where_the_whole_is_asked_for(tmp_path: Path) -> None:
    state = whole_state()
    del state["cls_head.fc_cls.bias"]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"cls_head\.fc_cls\.bias"):
        load_weights(recognizer(), tmp_path / "weights.pth", whole=True)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this would be code from the net",))


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ({"state_dict": Evil()}, "run code"),
        ({"resnet.conv1.weight": torch.zeros(1)}, "not an Iwin checkpoint"),
        ({"state_dict": {}}, "no tensors"),
        ([torch.zeros(1)], "a list"),
    ],
)
def test_files_that_are_no_weights_are_refused(
    content: object, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=hint):
        load_weights(recognizer(), tmp_path / "weights.pth")
    assert "code from the net" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_damaged_files_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="weights"):
        read_weights(tmp_path / name)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_weights("nowhere.pth")
