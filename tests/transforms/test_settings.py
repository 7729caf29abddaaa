"""From settings to transforms, labels and mixing, by `build`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from accelerate.state import AcceleratorState

from iwin.build import TRANSFORMS, build_criterion, build_sampler, build_transform
from iwin.config import load_run_config, schema
from iwin.data.annotations import read_class_folders
from iwin.data.datasets import ClipReader, Key, VideoDataset
from iwin.errors import ConfigError
from iwin.transforms.augment import RandAugment, RandomErasing
from iwin.transforms.geometry import Compose, Flip
from tests.goldens import generator, rule_input
from tests.runs import tiny_config, tiny_training

MIRRORED = {"kind": "flip", "probability": 1.0, "label_map": ((0, 1), (1, 0))}


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_every_step_that_settings_can_name_is_built() -> None:
    assert set(TRANSFORMS) == set(get_args(get_args(schema.TransformSettings)[0]))


def test_the_published_something_something_pipeline_trains() -> None:
    run, _ = load_run_config("iwin_base_patch244_window1677_sthv2")
    assert run.data.train is not None
    sampler, transform = build_sampler(run.data.train.sampling), build_transform(run.data.train)
    assert [type(step).__name__ for step in transform.transforms] == [
        "Resize",
        "RandomResizedCrop",
        "Resize",
        "RandAugment",
        "RandomErasing",
    ]
    augment, erasing = transform.transforms[3:]
    assert isinstance(augment, RandAugment)
    assert (augment.num_ops, augment.magnitude) == (4, 7)
    assert isinstance(erasing, RandomErasing)
    assert (erasing.probability, erasing.fill) == (0.25, "mean")
    frames = rule_input("video/50x60x80")[torch.from_numpy(sampler(50, generator("frames")))]
    results = [transform(frames, generator("pipeline")) for _ in range(2)]
    assert results[0].shape == (1, 32, 224, 224, 3)
    assert results[0].dtype == torch.uint8
    assert torch.equal(results[0], results[1])


def test_fills_are_the_mean_of_the_normalisation_as_rgb() -> None:
    steps = (schema.RandAugment(), schema.RandomErasing())
    normalize = schema.NormalizeSettings(mean=(1, 2, 3), std=(4, 5, 6), bgr=True)
    augment, erasing = build_transform(schema.SplitSettings(transforms=steps, normalize=normalize)).transforms
    assert isinstance(augment, RandAugment)
    assert isinstance(erasing, RandomErasing)
    assert augment.mean == erasing.mean == (3, 2, 1)
    assert erasing.std == (6, 5, 4)


# ----------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(("probability", "labels"), [(1.0, [1, 0, 2]), (0.0, [0, 1, 2])])
def test_a_mirrored_video_can_be_of_another_class(class_folders: Path, probability: float, labels: list[int]) -> None:
    flip = Flip(probability=probability, label_map=((0, 1), (1, 0)))
    reader = ClipReader(build_sampler(schema.SamplingSettings(clip_len=2)), Compose((flip,)))
    dataset = VideoDataset(read_class_folders(class_folders).samples[::3], reader)
    assert [dataset[Key(0, index)].labels for index in range(3)] == [(label,) for label in labels]


def test_label_maps_to_classes_that_are_not_there(class_folders: Path, tmp_path: Path) -> None:
    flip = MIRRORED | {"label_map": ((0, 3),)}
    with pytest.raises(ConfigError, match=r"names class 3; the classes are 0 \.\. 2"):
        tiny_training(tiny_config(class_folders, **{"data.train.transforms": [flip]}), tmp_path)


def test_label_maps_are_for_training(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="for training"):
        tiny_training(tiny_config(class_folders, **{"data.val.transforms": [MIRRORED]}), tmp_path)


# ----------------------------------------------------------------------------------------------- mixing


def test_a_batch_of_one_is_not_mixed_which_is_said(class_folders: Path, tmp_path: Path) -> None:
    settings = {"blending": {"mixup_alpha": 0.2}, "data.train.batch_size": 4, "optim.accumulation": 4}
    tiny_training(tiny_config(class_folders, **settings), tmp_path)
    [warning] = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert warning["mode"] == "warning"
    assert "one goes through the model at a time" in warning["message"]


@pytest.mark.parametrize("changes", [{}, {"model.class_weights": (1.0, 2.0, 3.0), "model.loss_weight": 2.0}])
def test_the_loss_takes_labels_and_probabilities(tmp_path: Path, changes: dict[str, Any]) -> None:
    criterion = build_criterion(tiny_config(tmp_path, **changes), torch.device("cpu"))
    logits, labels = torch.eye(3), torch.tensor([0, 2, 1])
    soft = torch.nn.functional.one_hot(labels).float()
    assert criterion(logits, labels).item() == pytest.approx(criterion(logits, soft).item())


def test_binary_cross_entropy_takes_several_labels(tmp_path: Path) -> None:
    criterion = build_criterion(tiny_config(tmp_path, **{"model.loss": "binary_cross_entropy"}), torch.device("cpu"))
    logits, targets = torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    right = torch.tensor([2.0, 1.0, 0.0]).sigmoid()  # the probability that each class is told rightly
    assert criterion(logits, targets).item() == pytest.approx(-right.log().mean().item())
