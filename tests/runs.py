"""A tiny run for tests: real videos, the nano model on small clips, seconds on a CPU."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from iwin.build import build_accelerator, build_training
from iwin.config.schema import RunConfig
from iwin.engine.log import RunLog
from iwin.engine.train import Training
from tests.videos import numbered_frames, write_video

NANO = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "drop_path_rate": 0.0}
CLIP = {"clip_len": 4, "frame_interval": 2}


def write_class_folders(root: Path, *, classes: int = 3, clips: int = 3) -> Path:
    """Folder of class folders of real videos: each class has its tint, each clip its frames."""
    for label in range(classes):
        for number in range(clips):
            path = root / f"class {label}" / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = numbered_frames(12, height=40, width=48, first=60 * label + 3 * number)
            frames[..., label % 3] //= 3
            write_video(path, frames)
    return root


def tiny_config(data: Path, **changes: Any) -> RunConfig:
    """Settings of a two-epoch run on `data`, training and validation alike, changed as "a.b": value says."""
    crop = {"kind": "center_crop", "size": (32, 32)}
    split = {"root": str(data), "num_workers": 0, "batch_size": 4}
    settings: dict[str, Any] = {
        "model": {"backbone": {**NANO}, "dropout": 0.0, "num_frames": 4},
        "data": {
            "train": {**split, "sampling": CLIP, "transforms": [crop, {"kind": "flip"}]},
            "val": {**split, "sampling": {**CLIP, "test_mode": True}, "transforms": [crop]},
        },
        "optim": {"lr": 1e-3},
        "epochs": 2,
        "log_interval": 2,
    }
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = settings
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return RunConfig.model_validate(settings)


def tiny_training(config: RunConfig, work_dir: Path) -> Training:
    """The run's objects, the model's fresh weights drawn from the config's seed; output is thrown away."""
    torch.manual_seed(config.seed)
    accelerator = build_accelerator(config, cpu=True, track_in=work_dir)
    log = RunLog(work_dir / "log.jsonl", Console(file=io.StringIO()))
    return build_training(config, accelerator=accelerator, log=log, work_dir=work_dir, config_text="")


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of three real videos."""
    return write_class_folders(tmp_path_factory.mktemp("data"))
