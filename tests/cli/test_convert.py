import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iwin.build import create_model, load_trained
from iwin.checkpoint.convert import load_weights
from iwin.checkpoint.io import read_weights, save_weights
from iwin.cli import main
from iwin.config import dump_config, read_config
from iwin.models.recognizer import IwinRecognizer

CONFIG = ["--config", "iwin_nano_demo", "--cfg-options", "model.cls_head.num_classes=5"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def recogniser(name: str = "epoch_30.pth", **meta: Any) -> dict[str, Tensor]:
    """A recogniser as upstream saves it; returns its tensors."""
    torch.manual_seed(0)
    state = create_model("iwin_nano", num_classes=5, num_frames=16).state_dict()
    torch.save({"meta": {"epoch": 30, **meta}, "state_dict": state, "optimizer": {"state": {}}}, name)
    return state


def image_model(name: str = "image.pth", **others: Any) -> dict[str, Tensor]:
    """An image model as its authors save it; returns its tensors."""
    state = create_model("iwin_image_nano").state_dict()
    torch.save({"model": state, **others}, name)
    return state


def assert_same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value.dtype == right[name].dtype
        assert torch.equal(value, right[name])


# ------------------------------------------------------------------------------------------- writing


def test_upstreams_to_ours_with_a_config_predicts_from_itself(capsys: pytest.CaptureFixture[str]) -> None:
    state = recogniser()
    assert main(["convert", "epoch_30.pth", "nano.safetensors", *CONFIG]) == 0
    said = capsys.readouterr().out
    assert "nano.safetensors: a recogniser of embed_dim 24, depths 1, 1, 2, 1, patch 2x4x4" in said
    assert "left out: optimizer" in said
    trained = load_trained("nano.safetensors")
    assert_same(trained.model.state_dict(), state)
    assert trained.config.model.num_classes == 5
    assert trained.config.data.test is not None


def test_there_and_back_is_the_same() -> None:
    state = recogniser()
    assert main(["convert", "epoch_30.pth", "1.safetensors", *CONFIG]) == 0
    assert main(["convert", "1.safetensors", "2.pth"]) == 0
    assert main(["convert", "2.pth", "3.safetensors"]) == 0
    first, third = read_weights("1.safetensors"), read_weights("3.safetensors")
    assert_same(first.state, state)
    assert_same(third.state, state)
    assert (first.metadata, first.others) == (third.metadata, third.others)
    content = torch.load("2.pth", weights_only=True)
    assert content.keys() == {"meta", "state_dict"}
    assert content["meta"]["epoch"] == 30
    assert content["meta"]["config"] == first.metadata["config_file"]


def test_what_an_upstream_checkpoint_says_of_its_config_is_taken_over() -> None:
    text = dump_config(read_config("iwin_nano_demo", ["model.cls_head.num_classes=5"])) + "gpu_ids = range(0, 2)\n"
    recogniser(config=text)
    assert main(["convert", "epoch_30.pth", "nano.safetensors"]) == 0
    assert load_trained("nano.safetensors").config.model.num_classes == 5
    assert main(["convert", "nano.safetensors", "again.pth"]) == 0
    assert torch.load("again.pth", weights_only=True)["meta"]["config"] == text


@pytest.mark.parametrize("text", ["model = build()", "model = dict(type='Recognizer3D')"])
def test_a_config_that_does_not_serve_is_left_out_and_said(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    recogniser(config=text)
    assert main(["convert", "epoch_30.pth", "nano.safetensors"]) == 0
    assert "written without a config: epoch_30.pth: the config in it is not understood" in capsys.readouterr().err
    assert read_weights("nano.safetensors").metadata == {}


def test_class_names_stay_when_a_new_config_is_given() -> None:
    state = recogniser()
    save_weights("named.safetensors", state, {"classes": json.dumps(list("abcde"))})
    assert main(["convert", "named.safetensors", "nano.safetensors", *CONFIG]) == 0
    assert load_trained("nano.safetensors").classes == tuple("abcde")


def test_a_backbone_alone() -> None:
    state = recogniser()
    for target in ("backbone.pth", "backbone.safetensors"):
        assert main(["convert", "epoch_30.pth", target, "--to", "backbone"]) == 0
        assert_same(
            read_weights(target).state,
            {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")},
        )
    report = load_weights(create_model("iwin_nano"), "backbone.pth")
    assert report.missing == ("cls_head.fc_cls.weight", "cls_head.fc_cls.bias")


def test_an_image_model_keeps_its_layout_and_config() -> None:
    config = {"MODEL": {"TYPE": "iwin", "IWIN": {"NUM_HEADS": [1, 2, 4, 8]}}}
    state = image_model(config=config, epoch=299)
    assert main(["convert", "image.pth", "image.safetensors"]) == 0
    assert main(["convert", "image.safetensors", "again.pth"]) == 0
    content = torch.load("again.pth", weights_only=True)
    assert content.keys() == {"model", "config"}
    assert content["config"] == config
    assert_same(content["model"], state)


def test_inflation_gives_what_loading_gives(capsys: pytest.CaptureFixture[str]) -> None:
    image_model()
    assert main(["convert", "image.pth", "video.safetensors", "--inflate", "iwin_nano"]) == 0
    assert "an image model, 86 tensors loaded" in capsys.readouterr().err
    model = create_model("iwin_nano", pretrained="image.pth")
    assert isinstance(model, IwinRecognizer)
    assert_same(read_weights("video.safetensors").state, model.backbone.state_dict())


def test_an_existing_file_is_replaced_only_by_force(capsys: pytest.CaptureFixture[str]) -> None:
    state = recogniser()
    Path("kept.safetensors").write_text("kept")
    assert main(["convert", "epoch_30.pth", "kept.safetensors"]) == 1
    assert "add --force to replace" in capsys.readouterr().err
    assert Path("kept.safetensors").read_text() == "kept"
    assert main(["convert", "epoch_30.pth", "kept.safetensors", "--force"]) == 0
    assert_same(read_weights("kept.safetensors").state, state)
    assert main(["convert", "kept.safetensors", "kept.safetensors", "--to", "backbone", "--force"]) == 0
    assert "norm.weight" in read_weights("kept.safetensors").state


# ------------------------------------------------------------------------------------------- looking


def test_inspection_says_what_a_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    image_model(config={"MODEL": {"TYPE": "iwin", "IWIN": {"NUM_HEADS": [1, 2, 4, 8]}}}, epoch=299)
    assert main(["convert", "image.pth", "--inspect"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["model"] == "an image model of embed_dim 24, depths 1, 1, 2, 1, patch 4x4"
    assert lines["heads"] == "1, 2, 4, 8"
    assert lines["classes"] == "1000"
    assert lines["frames"] == "no time embedding"
    assert lines["tensors"] == "88, 1,119,688 parameters, float32"
    assert lines["metadata"] == "none of ours"
    assert lines["besides"] == "config, epoch"


def test_inspection_of_another_programs_file(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"conv1.weight": torch.zeros(3).half(), "fc.weight": torch.zeros(2)}, "resnet.pth")
    assert main(["convert", "resnet.pth", "--inspect"]) == 0
    printed = capsys.readouterr().out
    assert "is not an Iwin checkpoint" in printed
    assert "2, 5 parameters, float16, float32" in printed


def test_inspection_names_classes_and_frames(capsys: pytest.CaptureFixture[str]) -> None:
    save_weights("a.safetensors", recogniser(), {"classes": json.dumps(["a", "b", "c", "d", "e", "f"])})
    assert main(["convert", "a.safetensors", "--inspect"]) == 0
    printed = capsys.readouterr().out
    assert "a, b, c, d, e, …" in printed
    assert "not stated, and shapes do not tell" in printed


# ------------------------------------------------------------------------------------------- bad input


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of three programs."""
    folder = tmp_path_factory.mktemp("files")
    recogniser(str(folder / "epoch_30.pth"))
    image_model(str(folder / "image.pth"))
    torch.save({"conv1.weight": torch.zeros(3)}, folder / "resnet.pth")
    (folder / "folder.pth").mkdir()
    return folder


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["nowhere.pth", "a.safetensors"], "there is no such checkpoint file"),
        (["epoch_30.pth"], "name the TARGET file"),
        (["epoch_30.pth", "a.txt"], "has to end with .safetensors or .pth or .pt"),
        (["epoch_30.pth", "a.pth", "--to", "iwin"], "has to end with .safetensors"),
        (["epoch_30.pth", "a.safetensors", "--to", "upstream"], "has to end with .pth or .pt"),
        (["epoch_30.pth", "image.pth/a.pth"], "image.pth is no folder that can be written to"),
        (["epoch_30.pth", "folder.pth", "--force"], "folder.pth is a folder; name a file in it"),
        (["epoch_30.pth", "a.safetensors", "--cfg-options", "a=1"], "--config"),
        (["epoch_30.pth", "a.safetensors", "--config", "iwin_tiny_patch244_window77_kinetics400_1k"], "5 classes"),
        (["epoch_30.pth", "a.safetensors", "--config", "nowhere.py"], "nowhere.py"),
        (["epoch_30.pth", "a.safetensors", "--inflate", "iwin_nano"], "is a recogniser and needs no inflation"),
        (["image.pth", "a.safetensors", "--inflate", "iwin_image_nano"], "name the video model"),
        (["image.pth", "a.safetensors", "--inflate", "iwin_tiny"], "does not fit the model"),
        (["image.pth", "a.safetensors", *CONFIG], "--config describes a recogniser"),
        (["resnet.pth", "a.safetensors"], "is not an Iwin checkpoint"),
    ],
)
def test_bad_input_gets_a_sentence_and_writes_nothing(
    args: list[str], hint: str, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    before = sorted(files.rglob("*"))
    assert main(["convert", *args]) == 1
    printed = capsys.readouterr()
    assert hint in printed.err
    assert printed.out == ""
    assert sorted(files.rglob("*")) == before
