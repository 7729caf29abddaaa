import argparse
import contextlib
import os
import pickle
import random
import subprocess
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from iwin.checkpoint.io import Weights, read_weights, save_upstream, save_weights, weights_format
from iwin.errors import CheckpointError

# ------------------------------------------------------------------------------------------- reading


class CfgNode(dict[str, Any]):
    """As the program that trains the image models saves its config; that program is not installed here."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__({key: CfgNode(value) if isinstance(value, dict) else value for key, value in values.items()})
        self.__dict__["__immutable__"] = True
        self.__dict__["__deprecated_keys__"] = {"OLD"}
        self.__dict__["__renamed_keys__"] = {}


IMAGE_CONFIG = {
    "MODEL": {
        "TYPE": "iwin",
        "SWIN": {"NUM_HEADS": [3, 6, 12, 24]},
        "IWIN": {"NUM_HEADS": [3, 4, 8, 16], "DEPTHS": [2, 2, 18, 2]},
    },
    "TRAIN": {"OPTIMIZER": {"BETAS": (0.9, 0.999)}},
    "AMP": True,
}


@pytest.fixture
def yacs(monkeypatch: pytest.MonkeyPatch) -> type[CfgNode]:
    """A class that is saved under the name yacs.config.CfgNode."""
    module = types.ModuleType("yacs.config")
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    monkeypatch.setattr(CfgNode, "__module__", "yacs.config")
    return CfgNode


def image_file(yacs: type[CfgNode]) -> dict[str, Any]:
    """What the program that trains the image models saves, and then some."""
    return {
        "model": OrderedDict(weight=torch.arange(3.0)),
        "optimizer": {"state": {0: {"step": 5, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]},
        "lr_scheduler": {"base_values": [1e-3], "noise_range_t": None},
        "max_accuracy": np.float64(83.4),
        "history": np.arange(4, dtype=np.int32),
        "args": argparse.Namespace(cfg="x.yaml", path=Path("data")),
        "config": yacs(IMAGE_CONFIG),
        "epoch": 299,
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_harmless_objects_of_other_programs_are_read_without_them(
    zipped: bool, yacs: type[CfgNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image.pth"
    torch.save(image_file(yacs), path, _use_new_zipfile_serialization=zipped)
    assert b"yacs.config" in path.read_bytes()
    monkeypatch.delitem(sys.modules, "yacs.config")
    monkeypatch.delitem(sys.modules, "yacs")
    allowed = torch.serialization.get_safe_globals()
    weights = read_weights(path)
    assert "yacs" not in sys.modules
    assert torch.equal(weights.state["weight"], torch.arange(3.0))
    assert list(weights.others) == ["optimizer", "lr_scheduler", "max_accuracy", "history", "args", "config", "epoch"]
    assert type(weights.others["config"]) is OrderedDict
    assert weights.others["config"]["MODEL"]["IWIN"]["NUM_HEADS"] == [3, 4, 8, 16]
    assert type(weights.others["args"]).__name__ == "StandIn"
    assert set(torch.serialization.get_safe_globals()) == set(allowed)


class Attack:
    """Asks the reader to call something."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "attack",
    [Attack(print, "run"), Attack(eval, "print('run')"), Attack(getattr, "x", "upper"), Attack(np.save, "x", [1])],
)
def test_anything_else_is_refused_and_not_run(
    attack: Attack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": {"weight": torch.zeros(1)}, "config": attack}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"could run code \(Unsupported global: GLOBAL \w+") as refusal:
        read_weights(tmp_path / "weights.pth")
    assert "\n" not in str(refusal.value)
    assert capsys.readouterr().out == ""


def test_the_content_tells_the_format(tmp_path: Path) -> None:
    state = {"weight": torch.zeros(2)}
    save_weights(tmp_path / "wrong.pth", state, {})
    torch.save(state, tmp_path / "wrong.safetensors")
    torch.save(state, tmp_path / "old", _use_new_zipfile_serialization=False)
    for name, kind in [("wrong.pth", "safetensors"), ("wrong.safetensors", "torch"), ("old", "torch")]:
        assert weights_format(tmp_path / name) == kind
        assert torch.equal(read_weights(tmp_path / name).state["weight"], torch.zeros(2))


def test_wrappers_of_names_are_taken_off(tmp_path: Path) -> None:
    torch.save({"module._orig_mod.a": torch.zeros(1), "_orig_mod.module.b": torch.zeros(1)}, tmp_path / "weights.pth")
    assert list(read_weights(tmp_path / "weights.pth").state) == ["a", "b"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damage_of_any_kind_is_one_sentence(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    state = {"a.weight": torch.zeros(3, 5), "b": torch.zeros(1)}
    if suffix == ".pth":
        torch.save({"state_dict": state, "meta": {"epoch": 1}}, path, _use_new_zipfile_serialization=False)
    else:
        save_weights(path, state, {"classes": "[]"})
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        content = bytearray(whole[: rng.randrange(len(whole)) if rng.random() < 0.3 else len(whole)])
        for _ in range(rng.randrange(4)):
            if content:
                content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        with contextlib.suppress(CheckpointError):  # some damage is harmless; no other error may come
            assert isinstance(read_weights(path), Weights)


# ------------------------------------------------------------------------------------------- there and back


def some_state() -> dict[str, Tensor]:
    """Tensors of many types and shapes, one of them not contiguous."""
    generator = torch.Generator().manual_seed(0)
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    state = {f"a.{kind}".replace("torch.", ""): torch.randn(2, 3, generator=generator).to(kind) for kind in kinds}
    return {
        **state,
        "b.count": torch.tensor(7),
        "b.mask": torch.tensor([True, False]),
        "b.turned": torch.randn(3, 4, generator=generator).t(),
        "b.odd": torch.tensor([float("nan"), float("inf"), -0.0]),
    }


def same(left: Weights, right: Weights) -> bool:
    """Whether two checkpoints hold the same bits under the same names, and say the same."""
    assert left.state.keys() == right.state.keys()
    for name, value in left.state.items():
        other = right.state[name]
        assert (value.dtype, value.shape) == (other.dtype, other.shape)
        assert pickle.dumps(value.flatten().view(torch.uint8).tolist()) == pickle.dumps(
            other.flatten().view(torch.uint8).tolist()
        )
    return left.metadata == right.metadata


OURS = {"format": "iwin", "config": '{"epochs": 3}', "config_file": "total_epochs = 3\n", "classes": '["Tanz", "跳"]'}


def test_ours_to_upstreams_and_back_is_the_same(tmp_path: Path) -> None:
    save_weights(tmp_path / "1.safetensors", some_state(), OURS)
    one = read_weights(tmp_path / "1.safetensors")
    save_upstream(tmp_path / "2.pth", one.state, one.metadata, others=one.others)
    two = read_weights(tmp_path / "2.pth")
    save_weights(tmp_path / "3.safetensors", two.state, two.metadata, others=two.others)
    three = read_weights(tmp_path / "3.safetensors")
    assert same(one, two)
    assert same(one, three)
    assert one.metadata == OURS
    assert three.others == {}


def test_upstreams_to_ours_and_back_is_the_same(tmp_path: Path) -> None:
    meta = {"epoch": 30, "iter": 9, "config": "total_epochs = 30", "mmcv_version": "1.3.3", "seed": None}
    torch.save({"meta": meta, "state_dict": some_state(), "optimizer": {"state": {}}}, tmp_path / "1.pth")
    one = read_weights(tmp_path / "1.pth")
    save_weights(tmp_path / "2.safetensors", one.state, one.metadata, others=one.others)
    two = read_weights(tmp_path / "2.safetensors")
    save_upstream(tmp_path / "3.pth", two.state, two.metadata, others=two.others)
    assert same(one, two)
    assert same(one, read_weights(tmp_path / "3.pth"))
    content = torch.load(tmp_path / "3.pth", weights_only=True)
    assert content.keys() == {"state_dict", "meta"}
    assert content["meta"] == meta


def test_an_image_file_keeps_its_config_and_layout(yacs: type[CfgNode], tmp_path: Path) -> None:
    content = image_file(yacs)
    content["model"] = {"patch_embed.proj.weight": torch.zeros(4, 3, 2, 2)}
    torch.save(content, tmp_path / "1.pth")
    one = read_weights(tmp_path / "1.pth")
    save_weights(tmp_path / "2.safetensors", one.state, one.metadata, others=one.others)
    two = read_weights(tmp_path / "2.safetensors")
    save_upstream(tmp_path / "3.pth", two.state, two.metadata, others=two.others)
    three = torch.load(tmp_path / "3.pth", weights_only=True)
    assert same(one, two)
    assert three.keys() == {"model", "config"}
    assert three["config"]["MODEL"] == IMAGE_CONFIG["MODEL"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_depends_on_its_content_only(suffix: str, tmp_path: Path) -> None:
    save = save_upstream if suffix == ".pth" else save_weights
    said = OURS | {"odd": '\0\x1f\x7f\u2028"\\/\n\N{CAT}'}
    written = []
    for name in "abc":
        save(tmp_path / f"{name}{suffix}", some_state(), said)
        written.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert written[0] == written[1] == written[2]
    assert read_weights(tmp_path / f"a{suffix}").metadata == said


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_umask_says_who_may_read_a_file(suffix: str, tmp_path: Path) -> None:
    save = save_upstream if suffix == ".pth" else save_weights
    before = os.umask(0o027)
    try:
        save(tmp_path / f"a{suffix}", some_state(), OURS)
    finally:
        os.umask(before)
    assert (tmp_path / f"a{suffix}").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_tensors_that_share_memory_are_written_each(suffix: str, tmp_path: Path) -> None:
    whole = torch.randn(1000, 10)
    state = {"a": whole, "b": whole, "part": whole[5:9]}
    save = save_upstream if suffix == ".pth" else save_weights
    save(tmp_path / f"weights{suffix}", state, {})
    read = read_weights(tmp_path / f"weights{suffix}").state
    assert all(torch.equal(value, read[name]) for name, value in state.items())
    save(tmp_path / f"part{suffix}", {"part": whole[5:9]}, {})
    assert (tmp_path / f"part{suffix}").stat().st_size < 3000


# ------------------------------------------------------------------------------------------- writing


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    """In a process of its own, which may write no file larger than a megabyte."""
    code = """
import resource, signal, torch
from iwin.checkpoint.io import save_upstream, save_weights
from iwin.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
for save in save_weights, save_upstream:
    try:
        save("weights", {"weight": torch.zeros(1000, 1000)}, {})
    except CheckpointError as error:
        print(error)
"""
    (tmp_path / "weights").write_text("old")
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    first, second = result.stdout.splitlines()
    assert first.startswith("weights: cannot be written (Error while serializing: I/O error: File too large")
    assert second == "weights: cannot be written whole; is there room on the disk?"
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
    assert (tmp_path / "weights").read_text() == "old"
