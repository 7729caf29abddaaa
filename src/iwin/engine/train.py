"""The training loop."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from iwin.data.annotations import Annotations
from iwin.data.batches import EpochBatches
from iwin.data.datasets import Batch
from iwin.data.loader import BatchLoader
from iwin.engine.advice import Advice
from iwin.engine.bad_files import BadFiles
from iwin.engine.evaluate import Evaluation, evaluate
from iwin.engine.log import RunLog, progress
from iwin.engine.meter import Meter
from iwin.engine.schedule import Schedule
from iwin.engine.state import Progress, WorkDir
from iwin.errors import BadVideosError, DataError, IwinError
from iwin.models.recognizer import IwinRecognizer

MAX_NONFINITE = 10
"""Optimiser steps in a row whose gradients may be infinite or NaN before training stops."""


class TrainingStopped(IwinError):  # noqa: N818 - nothing went wrong
    """Training was asked to stop, and saved its state before it did."""


@dataclass
class Training:
    """Everything that a training run works with.

    Attributes:
        accelerator: devices, processes and precision.
        model: the recogniser, as the accelerator prepared it.
        optimizer: likewise; its groups carry "initial_lr".
        schedule: learning rate over time.
        annotations: the training split.
        loader: this process's batches of it.
        batches: the loader's order, which the loop moves from epoch to epoch.
        normalize: maps uint8 clips (B, T, H, W, 3) on the device to normalised (B, 3, T, H, W).
        criterion: mean loss of logits (B, K) and labels (B,) or shares of the classes (B, K).
        work_dir: where files go.
        log: where records and lines go.
        bad_files: where videos that cannot be read are named.
        advice: what to say when the device waits for videos.
        epochs: epochs of the run.
        blend: maps normalised clips, labels (B,) or shares of the classes (B, K), epoch and batch to clips mixed with
            each other and their shares (B, K); None mixes nothing.
        accumulation: batches of an optimiser step.
        grad_clip: largest gradient norm; None does not clip.
        validation: the validation split; None runs without.
        validation_interval: epochs between validations.
        best_score: the figure that decides which checkpoint is best; None keeps no best.
        checkpoint_interval: epochs between checkpoints.
        log_interval: batches between log lines.
        metadata: strings that go into every checkpoint.
        stop_requested: asked after every optimiser step; True saves the state and stops.
        nonfinite_steps: optimiser steps in a row, up to now, whose gradients were infinite or NaN.
    """

    accelerator: Accelerator
    model: torch.nn.Module
    optimizer: Any
    schedule: Schedule
    annotations: Annotations
    loader: BatchLoader
    batches: EpochBatches
    normalize: Callable[[Tensor], Tensor]
    criterion: Callable[[Tensor, Tensor], Tensor]
    work_dir: WorkDir
    log: RunLog
    bad_files: BadFiles
    advice: Advice
    epochs: int
    blend: Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]] | None = None
    accumulation: int = 1
    grad_clip: float | None = None
    validation: Evaluation | None = None
    validation_interval: int = 1
    best_score: str | None = "top1_acc"
    checkpoint_interval: int = 1
    log_interval: int = 20
    metadata: Mapping[str, str] = field(default_factory=dict)
    stop_requested: Callable[[], bool] = lambda: False
    nonfinite_steps: int = field(default=0, init=False)

    @property
    def recognizer(self) -> IwinRecognizer:
        """The model without the wrappers of distributed training."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the data, by split, as checkpoints hold them; told with scores and kept with the state."""
        found: dict[str, str] = json.loads(self.metadata.get("fingerprints", "{}"))
        return found

    @property
    def layout(self) -> dict[str, int]:
        """What must be the same to go on exactly from a saved state."""
        return {
            "processes": self.accelerator.num_processes,
            "videos of a batch": self.batches.batch_size,
            "batches of a step": self.accumulation,
            "videos": len(self.annotations.samples),
            "seed": self.batches.seed,
        }

    def summary(self) -> str:
        """What is about to happen, in a line."""
        model = self.recognizer
        parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        validated = f", {len(self.validation.annotations.samples)} to validate" if self.validation else ""
        return (
            f"{parameters:.1f} M parameters, {model.num_classes} classes; {len(self.annotations.samples)} videos to "
            f"train on{validated}; {self.accelerator.num_processes} x {self.accelerator.device.type}, mixed precision "
            f"{self.accelerator.mixed_precision}; {self.epochs} epochs of {len(self.batches)} batches of "
            f"{self.batches.batch_size}, an optimiser step every {self.accumulation}"
        )


def train(run: Training, state: Progress | None = None) -> Progress:
    """Train from `state` (the beginning by default) to the last epoch.

    Every epoch: all batches, then checkpoints and validation where their intervals say so; the last epoch always ends
    with both. What was trained is saved before it is validated, so that trouble there costs nothing.
    """
    state = state or Progress()
    if state.epoch >= run.epochs:
        run.log.say(f"nothing is left to train: {state.epoch} of {run.epochs} epochs are done")
    while state.epoch < run.epochs:
        try:
            train_epoch(run, state)
        except DataError:
            if run.accelerator.num_processes == 1 and (state.epoch or state.batch):
                run.work_dir.save_state(run.accelerator, state, run.layout, run.metadata)
            raise
        state.epoch, state.batch = state.epoch + 1, 0
        last = state.epoch == run.epochs
        saves = last or state.epoch % run.checkpoint_interval == 0
        if saves:
            save(run, state)
        if run.validation is not None and (last or state.epoch % run.validation_interval == 0) and validate(run, state):
            if not saves:
                save(run, state)
            if run.accelerator.is_main_process:
                run.work_dir.save_best(state)
        if not last:
            stop_if_requested(run, state)
    return state


def train_epoch(run: Training, state: Progress) -> None:
    """One pass over the training data, from batch `state.batch` on."""
    run.model.train()
    run.batches.begin(state.epoch, batch=state.batch)
    meter = Meter(run.accelerator, state.counted)
    state.counted = ()
    title = f"epoch {state.epoch + 1}/{run.epochs}"
    loader = progress(run.loader, console=run.log.console, title=title, total=len(run.batches), done=state.batch)
    for index, batch in enumerate(loader, state.batch):
        meter.data_arrived()

        # Forward and backward. Every sample of an optimiser step weighs the same, also where the last batch is smaller.
        steps_now = (index + 1) % run.accumulation == 0 or index + 1 == len(run.batches)
        clips = batch.views_on(run.accelerator.device).flatten(0, 1)
        targets = batch.targets.to(run.accelerator.device, non_blocking=True)
        targets = targets.repeat_interleave(batch.views.shape[1], dim=0)
        clips = run.normalize(clips)
        if run.blend is not None:
            clips, targets = run.blend(clips, targets, state.epoch, index)
        with run.accelerator.autocast():
            logits = run.model(clips)
        loss = run.criterion(logits.float(), targets)
        share = len(batch) / step_samples(run, index)
        if steps_now:
            run.accelerator.backward(loss * share)
        else:
            with run.accelerator.no_sync(run.model):
                run.accelerator.backward(loss * share)
        meter.add(loss, logits, targets)

        # Step.
        if steps_now:
            lr = set_learning_rates(run, iteration=state.epoch * len(run.batches) + index)
            norm = run.accelerator.clip_grad_norm_(run.model.parameters(), run.grad_clip or math.inf)
            norm = float(norm) if norm is not None else math.nan
            if math.isfinite(norm) or run.accelerator.scaler is not None:  # the fp16 scaler skips such steps itself
                run.optimizer.step()
            run.nonfinite_steps = 0 if math.isfinite(norm) else run.nonfinite_steps + 1
            if run.nonfinite_steps >= MAX_NONFINITE:
                raise IwinError(describe_nonfinite(run, batch))
            run.optimizer.zero_grad(set_to_none=True)
            meter.stepped(lr=lr, grad_norm=norm)
            state.batch = index + 1

        # Log.
        if (index + 1) % run.log_interval == 0 or index + 1 == len(run.batches):
            record = meter.read()
            run.log.record("train", epoch=state.epoch + 1, iter=index + 1, **record)
            track(run, "train", record, iteration=state.epoch * len(run.batches) + index + 1)
            run.log.say(f"{title}  {index + 1}/{len(run.batches)}  {describe(record)}")
            run.bad_files.tell("train", run.loader.bad)
            if advice := run.advice(record):
                run.log.warn(advice)
        if steps_now:
            stop_if_requested(run, state, meter)
        meter.ready_for_data()


def step_samples(run: Training, index: int) -> int:
    """Samples, of this process, of the optimiser step that batch `index` belongs to."""
    size = run.accumulation * run.batches.batch_size
    first = index // run.accumulation * size
    return min(first + size, run.batches.samples) - first


def set_learning_rates(run: Training, *, iteration: int) -> float:
    """Set every group's rate for an iteration; returns the largest."""
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule.lr(
            group["initial_lr"], iteration=iteration, iterations_per_epoch=len(run.batches), epochs=run.epochs
        )
    return max(group["lr"] for group in run.optimizer.param_groups)


def describe_nonfinite(run: Training, batch: Batch) -> str:
    """Why training stops when the gradients stay infinite or NaN, naming the last clips."""
    paths = ", ".join(run.annotations.name(run.annotations.samples[index]) for index in batch.indices.tolist())
    return (
        f"the gradients were infinite or NaN in {MAX_NONFINITE} optimiser steps in a row, lastly with {paths}; "
        "lower the learning rate, clip gradients (optimizer_config.grad_clip) or train in bf16 or full precision"
    )


def stop_if_requested(run: Training, state: Progress, meter: Meter | None = None) -> None:
    """Save the state and stop, all processes together, if any was asked to or met too many bad videos.

    Raises:
        TrainingStopped: if a process was asked to.
        BadVideosError: if there are too many bad videos.
    """
    if run.stop_requested() or run.loader.bad.exceeded:
        run.accelerator.set_trigger()
    if run.accelerator.check_trigger():
        run.bad_files.tell("train", run.loader.bad)
        state.counted = meter.sums() if meter is not None else ()
        run.work_dir.save_state(run.accelerator, state, run.layout, run.metadata)
        stopped = f"stopped in epoch {state.epoch + 1} after batch {state.batch}"
        go_on = f"to go on exactly from here, run the same command with --resume-from {run.work_dir.path}"
        if run.loader.bad.exceeded:
            complaint = run.bad_files.complaint(run.loader.bad)
            raise BadVideosError(f"{stopped}, with everything saved ({go_on}): {complaint}")
        raise TrainingStopped(f"{stopped}; {go_on}")


def validate(run: Training, state: Progress) -> bool:
    """Evaluate the validation split; whether it is the best so far."""
    assert run.validation is not None
    _, result = evaluate(
        run.recognizer, run.validation, accelerator=run.accelerator, log=run.log, bad_files=run.bad_files
    )
    mark = run.fingerprints.get("val", "")
    run.log.record("val", epoch=state.epoch, **result, fingerprint=mark)
    track(run, "val", result, iteration=state.epoch * len(run.batches))
    value = None if run.best_score is None else result[run.best_score]
    is_best = value is not None and (state.best is None or value > state.best)
    if is_best:
        state.best, state.best_epoch = value, state.epoch
    best = "  (best so far)" if is_best else ""
    run.log.say(f"epoch {state.epoch}/{run.epochs}  validation  {describe(result)}  fingerprint {mark}{best}")
    return is_best


def save(run: Training, state: Progress) -> None:
    """Write the weights of the epoch just done, then the full state: after a crash in between the epoch is repeated."""
    if run.accelerator.is_main_process:
        path = run.work_dir.save_epoch(run.recognizer, state.epoch, metadata=run.metadata)
        run.log.say(f"saved {path}")
    run.work_dir.save_state(run.accelerator, state, run.layout, run.metadata)


def track(run: Training, mode: str, record: Mapping[str, float], *, iteration: int) -> None:
    """Send a record to the run's experiment trackers, if it has any."""
    run.accelerator.log({f"{mode}/{name}": value for name, value in record.items()}, step=iteration)


def describe(record: Mapping[str, float | int]) -> str:
    """A record as one readable line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in record.items())
