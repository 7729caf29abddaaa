import dataclasses
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import Tensor

from iwin.build import load_trained
from iwin.checkpoint.io import read_weights
from iwin.config.schema import RunConfig
from iwin.engine.log import RunLog
from iwin.engine.resume import load_state
from iwin.engine.state import Progress
from iwin.engine.train import MAX_NONFINITE, Training, TrainingStopped, train
from iwin.errors import CheckpointError, ConfigError, IwinError
from tests.runs import tiny_config, tiny_training


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def weights(training: Training) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in training.recognizer.state_dict().items()}


def records(work_dir: Path, mode: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (work_dir / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["mode"] == mode]


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


# ------------------------------------------------------------------------------------------- a run


def test_a_run_leaves_checkpoints_state_and_log(class_folders: Path, tmp_path: Path) -> None:
    run = tiny_training(tiny_config(class_folders), tmp_path)
    before = weights(run)
    progress = train(run)
    assert (progress.epoch, progress.batch) == (2, 0)
    assert any(not torch.equal(value, before[name]) for name, value in weights(run).items())

    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"log.jsonl", "epoch_1.safetensors", "epoch_2.safetensors", "last.safetensors", "best.safetensors",
                     "state"}  # fmt: skip
    assert_equal(read_weights(tmp_path / "last.safetensors").state, weights(run))
    best = read_weights(tmp_path / "best.safetensors")
    assert best.metadata["epoch"] == str(progress.best_epoch)

    assert [(line["epoch"], line["iter"]) for line in records(tmp_path, "train")] == [(1, 2), (1, 3), (2, 2), (2, 3)]
    assert {"lr", "loss", "grad_norm", "top1_acc", "top5_acc", "time", "data_time"} <= records(tmp_path, "train")[
        0
    ].keys()
    (first, second) = records(tmp_path, "val")
    assert {"top1_acc", "top5_acc", "mean_class_accuracy"} <= first.keys()
    assert (second["videos"], second["listed"]) == (9, 9)
    assert progress.best == max(first["top1_acc"], second["top1_acc"])


def test_trackers_see_what_the_log_holds(class_folders: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tiny_training(tiny_config(class_folders, trackers=("tensorboard",)), tmp_path)
    train(run)
    run.accelerator.end_training()
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    seen = EventAccumulator(str(events)).Reload()
    losses = [(event.step, event.value) for event in seen.Scalars("train/loss")]
    logged = [record["loss"] for record in records(tmp_path, "train")]
    assert losses == [(step, pytest.approx(loss)) for step, loss in zip((2, 3, 5, 6), logged, strict=True)]
    assert len(seen.Scalars("val/top1_acc")) == 2


def test_a_tracker_that_is_not_installed_is_refused(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tracker comet_ml is not installed"):
        tiny_training(tiny_config(class_folders, trackers=("comet_ml",)), tmp_path)


def test_a_checkpoint_carries_model_config_and_classes(class_folders: Path, tmp_path: Path) -> None:
    run = tiny_training(tiny_config(class_folders, epochs=1), tmp_path)
    train(run)
    trained = load_trained(tmp_path / "last.safetensors")
    assert trained.classes == ("class 0", "class 1", "class 2")
    assert trained.config.model.backbone.embed_dim == 24
    assert_equal(trained.model.state_dict(), weights(run))


def test_old_epochs_are_removed_where_the_config_says_so(class_folders: Path, tmp_path: Path) -> None:
    train(tiny_training(tiny_config(class_folders, epochs=4, keep_checkpoints=1, checkpoint_interval=2), tmp_path))
    assert [path.name for path in tmp_path.glob("epoch_*")] == ["epoch_4.safetensors"]
    assert (tmp_path / "best.safetensors").exists()


def test_the_same_seed_gives_the_same_weights(class_folders: Path, tmp_path: Path) -> None:
    results = []
    for attempt, seed in enumerate((1, 1, 2)):
        run = tiny_training(tiny_config(class_folders, epochs=1, seed=seed), tmp_path / str(attempt))
        train(run)
        results.append(weights(run))
    assert_equal(results[0], results[1])
    assert any(not torch.equal(value, results[2][name]) for name, value in results[0].items())


def test_training_learns(class_folders: Path, tmp_path: Path) -> None:
    config = tiny_config(class_folders, epochs=8, **{"optim.lr": 4e-3, "data.train.batch_size": 9})
    run = tiny_training(config, tmp_path)
    train(run)
    losses = [record["loss"] for record in records(tmp_path, "train")]
    assert losses[-1] < 0.7 * losses[0]


def test_training_learns_from_mixed_clips(class_folders: Path, tmp_path: Path) -> None:
    """The loss of an undecided model is log 3; the accuracy counts the class with the largest share."""
    blending = {"mixup_alpha": 0.2, "cutmix_alpha": 0.2}
    changes = {"optim.lr": 4e-3, "data.train.batch_size": 9, "data.val": None}
    run = tiny_training(
        tiny_config(class_folders, epochs=8, checkpoint_interval=8, blending=blending, **changes), tmp_path
    )
    train(run)
    lines = records(tmp_path, "train")
    assert lines[0]["loss"] == pytest.approx(1.1, abs=0.1)
    assert min(line["loss"] for line in lines) < 0.8
    assert max(line["top1_acc"] for line in lines) >= 7 / 9


def several_labels(clips: Path, folder: Path) -> RunConfig:
    """Nine videos of a class each; those of class 2 are of class 0 as well."""
    videos = sorted(clips.rglob("*.mp4"))
    lines = [f"{video} {video.parent.name[-1]}{' 0' if video.parent.name[-1] == '2' else ''}" for video in videos]
    (folder / "list.txt").write_text("\n".join(lines))
    changes: dict[str, Any] = {"model.loss": "binary_cross_entropy", "model.loss_weight": 3.0, "model.num_classes": 4}
    for split in ("train", "val"):
        changes |= {f"data.{split}.root": "", f"data.{split}.ann_file": str(folder / "list.txt")}
        changes |= {f"data.{split}.multi_class": True}
    return tiny_config(clips, **changes, **{"evaluation.metrics": ("mean_average_precision",)})


@pytest.mark.slow
def test_training_learns_several_labels_a_video(class_folders: Path, tmp_path: Path) -> None:
    changes = {"optim": {"lr": 4e-3}, "epochs": 10}
    config = several_labels(class_folders, tmp_path)
    run = tiny_training(RunConfig.model_validate(config.model_dump() | changes), tmp_path / "run")
    train(run)
    lines = records(tmp_path / "run", "train")
    assert lines[0]["loss"] < 3 * 0.7, "the loss of an undecided model is 3 log 2"
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    values = [line["mean_average_precision"] for line in records(tmp_path / "run", "val")]
    assert max(values) > 0.8
    assert read_weights(tmp_path / "run" / "best.safetensors").metadata["epoch"] == str(values.index(max(values)) + 1)


def test_several_labels_are_mixed_and_gone_on_with(class_folders: Path, tmp_path: Path) -> None:
    config = several_labels(class_folders, tmp_path)
    blending = {"blending": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}}
    assert_goes_on_bit_for_bit(RunConfig.model_validate(config.model_dump() | blending), tmp_path, stop_after=2)


def test_what_several_labels_cannot_have_is_refused(class_folders: Path, tmp_path: Path) -> None:
    config = several_labels(class_folders, tmp_path)
    top = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"metrics": ("top_k_accuracy",)})}
    )
    with pytest.raises(ConfigError, match=r"top_k_accuracy is for one label a video, but data\.val has several"):
        tiny_training(top, tmp_path / "run")


def test_a_balanced_run_with_repeated_clips_goes_on_bit_for_bit(class_folders: Path, tmp_path: Path) -> None:
    config = tiny_config(class_folders, **{"data.train.class_power": 0.0, "data.train.repeats": 2})
    assert_goes_on_bit_for_bit(config, tmp_path, stop_after=4)


# ------------------------------------------------------------------------------------------- accumulation


def test_accumulated_batches_equal_one_large_batch(class_folders: Path, tmp_path: Path) -> None:
    """Nine samples: two steps of four and one of one, so the last step is a smaller one in both runs."""
    results = []
    for accumulation in (1, 2, 4):
        config = tiny_config(class_folders, epochs=1, **{"optim.accumulation": accumulation, "optim.name": "sgd"})
        run = tiny_training(config, tmp_path / str(accumulation))
        assert run.batches.batch_size == 4 // accumulation
        train(run)
        results.append(weights(run))
    for name, value in results[0].items():
        for other in results[1:]:
            torch.testing.assert_close(other[name], value, rtol=0, atol=2e-6)


# ------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_a_stopped_run_goes_on_bit_for_bit(class_folders: Path, tmp_path: Path, stop_after: int) -> None:
    """Dropout is on, so the random state matters; steps 1-3 are in the first epoch, 4 in the second."""
    changes = {"model.dropout": 0.5, "optim.accumulation": 2, "data.train.batch_size": 4}
    assert_goes_on_bit_for_bit(tiny_config(class_folders, **changes), tmp_path, stop_after=stop_after)


def test_a_stopped_run_of_mixed_and_augmented_clips_goes_on_bit_for_bit(class_folders: Path, tmp_path: Path) -> None:
    """It stops before the first record, which counts what came before all the same."""
    steps = [
        {"kind": "multi_scale_crop", "size": (32, 32), "scales": (1.0, 0.75)},
        {"kind": "resize", "size": (32, 32)},
        {"kind": "flip", "label_map": ((0, 1), (1, 0))},
        {"kind": "color_jitter"},
        {"kind": "rand_augment"},
        {"kind": "random_erasing", "fill": "noise"},
    ]
    changes = {"data.train.transforms": steps, "blending": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}}
    loss = {"model.label_smoothing": 0.1, "model.class_weights": (1.0, 2.0, 0.5)}
    assert_goes_on_bit_for_bit(tiny_config(class_folders, **changes, **loss), tmp_path, stop_after=1)


def assert_goes_on_bit_for_bit(config: RunConfig, tmp_path: Path, *, stop_after: int) -> None:
    whole = tiny_training(config, tmp_path / "whole")
    train(whole)

    AcceleratorState._reset_state(reset_partial_state=True)
    stopped = tiny_training(config, tmp_path / "stopped")
    asked = iter(range(100))
    stopped.stop_requested = lambda: next(asked) + 1 >= stop_after
    with pytest.raises(TrainingStopped, match="--resume-from"):
        train(stopped)

    AcceleratorState._reset_state(reset_partial_state=True)
    torch.manual_seed(99)
    resumed = tiny_training(config, tmp_path / "stopped")
    progress = load_state(tmp_path / "stopped", resumed)
    train(resumed, progress)
    assert_equal(weights(resumed), weights(whole))
    last = [records(tmp_path / name, "val")[-1] | {"timestamp": 0} for name in ("stopped", "whole")]
    assert last[0] == last[1]
    keys = ("epoch", "iter", "lr", "grad_norm", "loss", "top1_acc", "top5_acc")
    logged = [
        [[line[key] for key in keys] for line in records(tmp_path / name, "train")] for name in ("stopped", "whole")
    ]
    assert logged[0] == logged[1]


def test_a_folder_without_state_is_refused(class_folders: Path, tmp_path: Path) -> None:
    run = tiny_training(tiny_config(class_folders), tmp_path)
    with pytest.raises(CheckpointError, match="no training state"):
        load_state(tmp_path / "nowhere", run)


def test_another_batch_size_is_refused(class_folders: Path, tmp_path: Path) -> None:
    train(tiny_training(tiny_config(class_folders, epochs=1), tmp_path))
    AcceleratorState._reset_state(reset_partial_state=True)
    other = tiny_training(tiny_config(class_folders, **{"data.train.batch_size": 3}), tmp_path)
    with pytest.raises(CheckpointError, match="videos of a batch is 3, was 4"):
        load_state(tmp_path, other)


def test_what_was_trained_is_saved_before_it_is_validated(class_folders: Path, tmp_path: Path) -> None:
    run = tiny_training(tiny_config(class_folders), tmp_path)
    assert run.validation is not None
    run.validation = dataclasses.replace(run.validation, metrics=("mean_average_precision",))
    with pytest.raises(IwinError):
        train(run)
    assert (tmp_path / "last.safetensors").exists()
    assert load_state(tmp_path, run).epoch == 1


def test_a_best_score_that_does_not_exist_is_refused(class_folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="save_best=top3_acc: the figures are top1_acc, top5_acc, mean_class"):
        tiny_training(tiny_config(class_folders, **{"evaluation.save_best": "top3_acc"}), tmp_path)


def test_the_state_of_another_model_is_refused(class_folders: Path, tmp_path: Path) -> None:
    train(tiny_training(tiny_config(class_folders, epochs=1), tmp_path))
    AcceleratorState._reset_state(reset_partial_state=True)
    other = tiny_training(tiny_config(class_folders, **{"model.backbone.embed_dim": 16}), tmp_path)
    with pytest.raises(CheckpointError, match=r"another model: \d+ of \d+ tensors differ, the first is backbone"):
        load_state(tmp_path, other)


# ------------------------------------------------------------------------------------------- trouble


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("spare", [-1, 1])
def test_a_state_for_which_there_is_no_room_leaves_the_one_before(
    class_folders: Path, tmp_path: Path, spare: int
) -> None:
    """The first file that is too large is that of the weights, or that of the optimiser."""
    import resource

    run = tiny_training(tiny_config(class_folders, epochs=1), tmp_path)
    train(run)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "state").iterdir()}
    limit = sizes["model.safetensors"] + spare
    assert limit < sizes["optimizer.bin"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        with pytest.raises(
            IwinError, match=r"state: the training state cannot be written \(.*\); the one before is kept"
        ):
            run.work_dir.save_state(run.accelerator, Progress(epoch=5), run.layout, run.metadata)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_log_that_cannot_be_written_holds_no_half_line(tmp_path: Path) -> None:
    import resource

    log = RunLog(tmp_path / "log.jsonl", Console(file=io.StringIO()))
    log.record("train", loss=1.0)
    before = (tmp_path / "log.jsonl").read_bytes()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, usual[1]))
    try:
        with pytest.raises(IwinError, match=r"log\.jsonl: the log cannot be written"):
            log.record("train", loss=2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_gradients_that_stay_infinite_stop_the_run_and_name_the_clips(class_folders: Path, tmp_path: Path) -> None:
    config = tiny_config(class_folders, epochs=MAX_NONFINITE, **{"data.train.batch_size": 9})
    run = tiny_training(config, tmp_path)
    with torch.no_grad():
        run.recognizer.cls_head.fc_cls.bias.fill_(torch.inf)
    before = weights(run)
    with pytest.raises(IwinError, match=r"in 10 optimiser steps in a row, lastly with class [0-2]/[0-2]\.mp4, "):
        train(run)
    assert_equal(weights(run), before)


def test_a_bad_video_is_named_and_does_not_end_the_run(tmp_path: Path) -> None:
    from tests.runs import write_class_folders

    data = write_class_folders(tmp_path / "data", clips=2)
    (data / "class 1" / "broken.mp4").write_bytes(b"not a video")
    run = tiny_training(tiny_config(data, epochs=1), tmp_path / "run")
    train(run)
    warnings = [record["message"] for record in records(tmp_path / "run", "warning")]
    assert any("broken.mp4" in message for message in warnings)
    (validation,) = records(tmp_path / "run", "val")
    assert (validation["videos"], validation["listed"]) == (6, 7)
