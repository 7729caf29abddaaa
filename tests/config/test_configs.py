"""The configs that are shipped: what they resolve to, and that they can be found."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from iwin.config import find_config, load_run_config, read_config, shipped_configs
from iwin.errors import ConfigError
from tests.goldens import SUBSET

ROOT = Path(__file__).parents[2]
TINY = "iwin_tiny_patch244_window77_kinetics400_1k"
GOLDENS = sorted((SUBSET / "configs").glob("*.typed.json"))


def with_tuples(data: Any) -> Any:
    match data:
        case {"__tuple__": items}:
            return tuple(with_tuples(item) for item in items)
        case dict():
            return {key: with_tuples(value) for key, value in data.items()}
        case list():
            return [with_tuples(item) for item in data]
    return data


def without_places(data: Any) -> Any:
    """The config without what says where data and results lie."""
    if isinstance(data, dict):
        places = {"ann_file", "data_prefix", "data_root", "data_root_val", "work_dir"}
        return {
            key: None if key in places or key.startswith("ann_file_") else without_places(value)
            for key, value in data.items()
        }
    return data


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda path: path.name.removesuffix(".typed.json"))
def test_each_published_config_resolves_to_what_the_original_resolves_to(golden: Path) -> None:
    config = read_config(golden.name.removesuffix(".typed.json"))
    original = with_tuples(json.loads(golden.read_text()))
    assert repr_sorted(without_places(config)) == repr_sorted(without_places(original)), "values and their types"


def repr_sorted(data: Any) -> Any:
    """Comparable down to the difference of 1 and 1.0, whatever the order of keys."""
    match data:
        case dict():
            return {key: repr_sorted(value) for key, value in data.items()}
        case list() | tuple():
            return [type(data).__name__, *(repr_sorted(item) for item in data)]
    return repr(data)


def test_all_eleven_are_there() -> None:
    published = {path.name.removesuffix(".typed.json") for path in GOLDENS}
    assert len(published) == 11
    assert shipped_configs().keys() == published | {"iwin_nano_demo", "iwin_nano_16x4x112_folders"}


@pytest.mark.parametrize("name", shipped_configs())
def test_each_shipped_config_is_understood_and_says_how_to_run_it(name: str) -> None:
    run, _ = load_run_config(name)
    assert run.data.train
    assert run.data.val
    assert run.data.test
    assert run.work_dir == f"work_dirs/{name}"
    header = shipped_configs()[name].read_text().partition("\n_base_")[0]
    assert "arXiv 2507.18405" in header
    assert "Accuracy:" in header
    assert "Hardware:" in header
    assert f"train {name}" in header, "the exact command"


def test_accuracies_that_the_authors_report_are_said_to_be_theirs() -> None:
    claims = {name: path.read_text() for name, path in shipped_configs().items() if "top-1" in path.read_text()}
    assert claims.keys() == {TINY, "iwin_small_patch244_window77_kinetics400_1k"}
    assert all("(reported by the authors)" in text for text in claims.values())


@pytest.mark.parametrize("base", sorted((ROOT / "configs/_base_").rglob("*.py")), ids=lambda path: path.stem)
def test_every_base_can_be_read_by_itself(base: Path) -> None:
    assert read_config(base)


@pytest.mark.parametrize("schedule", ["adam_20e", "sgd_50e", "sgd_100e", "sgd_150e_warmup"])
def test_the_plain_schedules_are_understood(tmp_path: Path, schedule: str) -> None:
    bases = [f"{ROOT}/configs/_base_/{name}" for name in ("models/iwin/iwin_tiny.py", f"schedules/{schedule}.py")]
    (tmp_path / "config.py").write_text(f"_base_ = {bases}")
    run, notes = load_run_config(tmp_path / "config.py")
    assert run.epochs == int(schedule.split("_")[1].removesuffix("e"))
    assert run.optim.grad_clip == 40
    assert run.schedule.policy == "step"
    assert run.schedule.steps == {20: (10,), 50: (20, 40), 100: (40, 80), 150: (90, 130)}[run.epochs]
    assert notes == []


def test_the_demo_counts_its_classes_and_needs_no_lists() -> None:
    run, _ = load_run_config("iwin_nano_demo")
    assert run.model.num_classes is None
    assert run.data.train
    assert run.data.train.ann_file is None
    assert run.model.num_frames == run.data.train.sampling.clip_len
    assert not run.optim.mixed_precision


# ------------------------------------------------------------------------------------------------ finding


@pytest.mark.parametrize("name", [TINY, f"{TINY}.py", f"configs/recognition/iwin/{TINY}.py"])
def test_a_shipped_config_is_found_by_its_name_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == shipped_configs()[TINY]


def test_a_file_of_the_users_comes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"{TINY}.py").write_text("x = 1")
    assert read_config(f"{TINY}.py") == {"x": 1}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("iwin_tiny_patch244_window7_kinetics400_1k.py", f"did you mean '{TINY}'"),
        ("nothing_like_it", "shipped configs are .*iwin_nano_demo"),
        (f"elsewhere/{TINY}.py", f"there is no config file elsewhere/{TINY}.py"),
        (".", "is a folder; name a config file in it"),
    ],
)
def test_a_config_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_config(name)


def test_an_installed_wheel_carries_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwin.config.shipped._PACKAGE", tmp_path / "site-packages" / "iwin")
    assert shipped_configs() == {}
    config = tmp_path / "site-packages/iwin/configs/recognition/iwin/one.py"
    config.parent.mkdir(parents=True)
    config.write_text("x = 1")
    assert read_config("one") == {"x": 1}


def test_reading_configs_needs_no_torch() -> None:
    code = f"import sys, iwin.config as c; c.load_run_config({TINY!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
