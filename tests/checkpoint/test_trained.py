"""Checkpoints on their way into a model: `create_model`, a training run's start, a trained recogniser."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from iwin.build import build_model, create_model, load_trained, start_from_weights, stated_config
from iwin.checkpoint.io import read_weights, save_weights
from iwin.config import dump_config, load_run_config, read_config
from iwin.config.schema import RunConfig
from iwin.engine.log import RunLog
from iwin.errors import CheckpointError
from tests.runs import NANO, tiny_config

IMAGE_CONFIG = {"MODEL": {"TYPE": "iwin", "IWIN": {"NUM_HEADS": [3, 3, 3, 3]}}}


def image_file(path: Path) -> Path:
    """Image weights that state heads which iwin_nano has not."""
    torch.save({"model": create_model("iwin_image_nano").state_dict(), "config": IMAGE_CONFIG}, path)
    return path


def upstream_file(path: Path, text: str) -> dict[str, Tensor]:
    """A recogniser as mmcv saves it, its config as text beside it."""
    state = create_model("iwin_nano", num_classes=5, num_frames=16).state_dict()
    torch.save({"meta": {"config": text, "epoch": 30}, "state_dict": state, "optimizer": {}}, path)
    return state


def start(settings: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """`start_run` of a small model with some settings."""
    return start_run(RunConfig.model_validate({"model": {"backbone": NANO, **settings}}))


def start_run(config: RunConfig) -> tuple[str, list[dict[str, Any]]]:
    """What is said when a run starts from weights, and what is recorded as a warning."""
    written = io.StringIO()
    log = RunLog(None, Console(file=written))
    recorded: list[dict[str, Any]] = []
    log.record = lambda mode, **values: recorded.append({"mode": mode, **values})  # type: ignore[method-assign]
    start_from_weights(config, build_model(config.model, num_classes=5), log)
    return written.getvalue(), recorded


def test_create_model_warns_of_other_attention_heads(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="trained with 3, 3, 3, 3 attention heads, but the model has 1, 2, 4, 8"):
        create_model("iwin_nano", pretrained=image_file(tmp_path / "image.pth"))


def test_a_run_warns_of_other_attention_heads(tmp_path: Path) -> None:
    said, recorded = start({"pretrained": str(image_file(tmp_path / "image.pth"))})
    assert "an image model, 86 tensors loaded" in said
    assert [record["mode"] for record in recorded] == ["warning"]
    assert "3, 3, 3, 3" in recorded[0]["message"]


def test_a_run_says_where_pretrained2d_is_wrong(tmp_path: Path) -> None:
    upstream_file(tmp_path / "video.pth", "")
    said, recorded = start({"pretrained": str(tmp_path / "video.pth")})
    assert "pretrained2d=True has no effect" in said
    assert recorded == []
    said, _ = start({"pretrained": str(tmp_path / "video.pth"), "pretrained_image": False})
    assert "pretrained2d" not in said


def test_a_run_of_a_pretrained_recipe_without_weights_warns_loudly() -> None:
    recipe, _ = load_run_config("iwin_tiny_patch244_window77_kinetics400_1k")
    config = recipe.model_copy(update={"model": tiny_config(Path()).model})
    said, recorded = start_run(config)
    assert [record["mode"] for record in recorded] == ["warning"]
    assert "backbone at 0.1 of the learning rate" in said
    assert "set model.backbone.pretrained=<PRETRAIN_MODEL>" in said


def test_a_trained_model_comes_from_an_address_too(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    state = build_model(config.model, num_classes=3).state_dict()
    metadata = {"config": config.model_dump_json(), "classes": json.dumps(["a", "b", "c"])}
    save_weights(tmp_path / "best.safetensors", state, metadata)
    trained = load_trained((tmp_path / "best.safetensors").as_uri())
    assert trained.classes == ("a", "b", "c")
    assert trained.config == config
    assert all(torch.equal(value, state[name]) for name, value in trained.model.state_dict().items())


def test_an_upstream_checkpoint_brings_its_config(tmp_path: Path) -> None:
    options = ["model.cls_head.num_classes=5"]
    data = read_config("iwin_nano_demo", options)
    text = dump_config(data) + "gpu_ids = range(0, 8)\nomnisource = False\n"
    state = upstream_file(tmp_path / "epoch_30.pth", text)
    trained = load_trained(tmp_path / "epoch_30.pth")
    assert trained.config.model.num_classes == 5
    assert trained.config.data.test is not None
    assert all(torch.equal(value, state[name]) for name, value in trained.model.state_dict().items())


@pytest.mark.parametrize("text", ["model = build()", "model = dict(type='TSN2D')", "_base_ = 'nowhere.py'", "\udc80 ="])
def test_a_config_in_a_checkpoint_that_is_not_understood_is_told(text: str, tmp_path: Path) -> None:
    upstream_file(tmp_path / "epoch_30.pth", text)
    with pytest.raises(CheckpointError, match=r"epoch_30\.pth: the config in it is not understood; name the config"):
        load_trained(tmp_path / "epoch_30.pth")


def test_metadata_that_is_not_ours_is_told(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", create_model("iwin_nano").state_dict(), {"config": '{"epochs": "many"}'})
    with pytest.raises(CheckpointError, match=r"not understood \(epochs: .*name the config that it was trained with"):
        stated_config(read_weights(tmp_path / "a.safetensors"))


def test_a_checkpoint_without_a_config_needs_one(tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", create_model("iwin_nano").state_dict(), {})
    with pytest.raises(CheckpointError, match=r"a\.safetensors: carries no config; name the config"):
        load_trained(tmp_path / "a.safetensors")
