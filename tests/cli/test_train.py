"""Runs that begin where another was, go on from one, or cannot be written: real files, real output."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from iwin.checkpoint.io import read_weights, save_weights
from iwin.cli.common import output_folder
from iwin.engine.log import read_log
from iwin.errors import ConfigError
from tests import users
from tests.commands import SMALL, Result, iwin


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A folder with the clips, and run/ trained on them for an epoch."""
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "clips").symlink_to(trained / "clips")
    return tmp_path


def train(folder: Path, *options: str, args: tuple[str, ...] = ("--resume-from", "run"), data: str = "clips") -> Result:
    return iwin("train", "iwin_nano_demo", "--data", data, *args, "--cfg-options", *SMALL, *options, cwd=folder)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(result: Result) -> str:
    """The one sentence of a command that was refused."""
    assert result.status == 1, result.err
    *_, line = result.err.splitlines()
    assert line.startswith("iwin: ")
    assert "Traceback" not in result.err
    return line


# ------------------------------------------------------------------------------------------- going on


def test_a_run_goes_on_in_its_own_folder_with_the_settings_it_is_given(folder: Path) -> None:
    result = train(folder, "total_epochs=2", "optimizer.lr=0.5", "optimizer.weight_decay=0.9")
    assert result.status == 0, result.err
    told = "hold from here on: optimizer.lr is 0.5, was 0.001; optimizer.weight_decay is 0.9, was 0.05"
    assert told in result.err
    assert {path.name for path in folder.iterdir()} == {"clips", "run"}
    assert "lr=0.5" in (folder / "run" / "config.py").read_text()
    records = read_log(folder / "run")
    assert any(told in record["message"] for record in records if record["mode"] == "warning")
    # The second epoch of a warm-up over two from 0.1 on, and a cosine over two, begins with 0.55 * 0.5 of the rate.
    assert [record["lr"] for record in records if record["mode"] == "train"][3] == pytest.approx(0.5 * 0.55 * 0.5)
    groups = torch.load(folder / "run" / "state" / "optimizer.bin")["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.9}


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("optimizer.type=SGD", "optimizer.type is sgd, was adamw"),
        ("optimizer.paramwise_cfg.norm_decay_mult=0", "optimizer.paramwise_cfg.norm_decay_mult is 0.0, was None"),
        ("model.backbone.num_heads=(1,1,1,1)", "model.backbone.num_heads is [1, 1, 1, 1], was ["),
        ("model.backbone.embed_dim=12", "model.backbone.embed_dim is 12, was 24"),
        ("data.videos_per_gpu=2", "videos of a batch is 2, was 3"),
    ],
)
def test_what_a_state_cannot_be_gone_on_from_with_is_refused_before_anything_is_written(
    folder: Path, option: str, told: str
) -> None:
    before = contents(folder)
    assert told in refused(train(folder, "total_epochs=2", option))
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("optimizer.type=SGD", "is that of another optimiser"),
        ("model.backbone.embed_dim=12", "is that of another model: 88 of 89 tensors differ, the first is backbone."),
    ],
)
def test_a_state_without_settings_tells_by_its_tensors(folder: Path, option: str, told: str) -> None:
    (folder / "run" / "state" / "config.json").unlink()
    before = contents(folder)
    assert told in refused(train(folder, "total_epochs=2", option))
    assert contents(folder) == before


def test_other_data_of_the_same_size_are_told(folder: Path) -> None:
    shutil.copytree(folder / "clips", folder / "swapped")
    names = [folder / "swapped" / "train" / name for name in ("class 0", "aside", "class 1")]
    for source, target in ((0, 1), (2, 0), (1, 2)):
        names[source].rename(names[target])
    (names[0] / "0.mp4").rename(names[0] / "other name.mp4")
    result = train(folder, "total_epochs=1", data="swapped")
    assert result.status == 0, result.err
    assert "data.train is not what this run was trained with so far: its fingerprint is" in result.err
    assert "data.val" not in result.err


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("model.safetensors", "is not a readable safetensors file"),
        ("optimizer.bin", "optimizer.bin: is damaged"),
        ("random_states_0.pkl", "random_states_0.pkl: is damaged"),
    ],
)
def test_a_state_that_is_cut_off_is_refused(folder: Path, name: str, told: str) -> None:
    os.truncate(folder / "run" / "state" / name, 1000)
    before = contents(folder)
    assert told in refused(train(folder, "total_epochs=2"))
    assert contents(folder) == before


@pytest.mark.parametrize("text", ["{}", "[]", '{"epoch": 1}', '{"epoch": -1, "batch": 0}', "{"])
def test_a_state_that_does_not_say_where_it_stands_is_refused(folder: Path, text: str) -> None:
    (folder / "run" / "state" / "progress.json").write_text(text)
    assert "run/state: this training state is damaged" in refused(train(folder, "total_epochs=2"))


def test_the_state_before_a_crash_is_found_and_stays_until_there_is_another(folder: Path) -> None:
    (folder / "run" / "state").rename(folder / "run" / "state.old")
    result = train(folder, "total_epochs=2")
    assert result.status == 0, result.err
    assert json.loads((folder / "run" / "state" / "progress.json").read_text())["epoch"] == 2
    assert not (folder / "run" / "state.old").exists()


# ------------------------------------------------------------------------------------------- a folder in use


def test_an_earlier_run_in_the_same_folder_is_moved_aside(folder: Path) -> None:
    before = {path.relative_to(folder / "run"): text for path, text in contents(folder / "run").items()}
    result = train(folder, "total_epochs=1", args=("--work-dir", "run"))
    assert result.status == 0, result.err
    earlier = folder / "run" / "earlier_1"
    assert "run held another run, which now lies in run/earlier_1; to go on with that one: --resume-from" in result.err
    assert {path.relative_to(earlier): text for path, text in contents(earlier).items()} == before
    assert [record["mode"] for record in read_log(folder / "run")].count("train") == 3
    assert {path.name for path in folder.glob("run/*")} == {path.name for path in earlier.iterdir()} | {"earlier_1"}


def test_a_run_that_is_refused_moves_nothing(folder: Path) -> None:
    before = contents(folder)
    refused(train(folder, "model.cls_head.num_classes=2", args=("--work-dir", "run")))
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_folder_that_cannot_be_one_is_refused(folder: Path, name: str) -> None:
    (folder / "file").write_text("text")
    assert "file is no folder that can be written to" in refused(train(folder, args=("--work-dir", name)))
    assert (folder / "file").read_text() == "text"


def test_a_folder_that_may_not_be_written_to_is_refused() -> None:
    told = r"run cannot be written: .* is no folder that can be written to"
    with users.public_folder() as folder, users.refused(), pytest.raises(ConfigError, match=told):
        output_folder(str(folder / "run"))


# ------------------------------------------------------------------------------------------- labels and weights


def write_lists(folder: Path, labels: tuple[int, ...]) -> None:
    """lists/train.txt and lists/val.txt, with a video for each label."""
    videos = sorted(folder.joinpath("clips", "train").rglob("*.mp4"))
    (folder / "lists").mkdir()
    text = "".join(f"{video}, {label}\n" for video, label in zip(videos, labels, strict=False))
    for split in ("train", "val"):
        (folder / "lists" / f"{split}.txt").write_text(text)


def test_labels_with_gaps_are_told(folder: Path) -> None:
    write_lists(folder, (2, 7, 2))
    result = train(folder, "total_epochs=1", args=("--work-dir", "new", "--no-validate"), data="lists")
    assert result.status == 0, result.err
    told = "train.txt: 6 of the 8 classes that its labels count have no video (0, 1, 3, 4, 5, …); labels should count"
    assert told in result.err
    assert any(told in record["message"] for record in read_log(folder / "new") if record["mode"] == "warning")


def test_a_label_that_can_be_no_class_is_refused(folder: Path) -> None:
    write_lists(folder, (0, 2_000_000_000))
    assert "has label 2000000000, which would make" in refused(train(folder, args=("--work-dir", "new"), data="lists"))
    assert not (folder / "new").exists()


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    weights = read_weights(folder / "run" / "last.safetensors")
    weights.state["backbone.layers.0.blocks.0.norm1.weight"][3] = torch.nan
    save_weights(folder / "broken.safetensors", weights.state, weights.metadata)
    result = train(folder, "load_from=broken.safetensors", args=("--work-dir", "new"))
    assert "its weights are not finite (backbone.layers.0.blocks.0.norm1.weight holds" in refused(result)
    assert not (folder / "new").exists()
