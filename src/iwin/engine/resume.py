"""Going on from a saved state, exactly where everything that decides is as it was."""

import pickle
import zipfile
from pathlib import Path

from safetensors import SafetensorError

from iwin.checkpoint.io import read_weights
from iwin.engine.state import Progress, SavedState, read_state
from iwin.engine.train import Training
from iwin.errors import CheckpointError

FROM_THE_RUN = ("lr", "initial_lr", "weight_decay", "betas", "eps", "momentum", "nesterov")
"""What a parameter group takes from the run that goes on, where the state holds the values of the run before."""


def load_state(path: str | Path, run: Training) -> Progress:
    """Restore everything that `WorkDir.save_state` wrote into a run's objects.

    Learning rate, weight decay and the optimiser's other numbers stay those of the run.

    Args:
        path: the work directory or its state folder.
        run: as it was built; left half filled where this raises.

    Raises:
        CheckpointError: if there is no complete state, or it belongs to another model, optimiser or layout.
    """
    saved = read_state(path)
    _check_layout(saved, run)
    _check_files(saved, run)
    _check_model(saved, run)
    own = [{name: group[name] for name in FROM_THE_RUN if name in group} for group in run.optimizer.param_groups]
    try:
        run.accelerator.load_state(str(saved.folder))
    except (RuntimeError, ValueError, KeyError, OSError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{saved.folder}: this training state does not fit the run ({reason})") from None
    for group, settings in zip(run.optimizer.param_groups, own, strict=True):
        if not settings.keys() <= group.keys():
            raise CheckpointError(
                f"{saved.folder}: this training state is that of another optimiser; choose it as it was, or start a "
                "new run from its weights with load_from"
            )
        group.update(settings)
    _tell_other_data(saved, run)
    return saved.progress


def _check_layout(saved: SavedState, run: Training) -> None:
    was = saved.layout
    changed = [f"{name} is {new}, was {was.get(name)}" for name, new in run.layout.items() if was.get(name) != new]
    if changed:
        raise CheckpointError(
            f"{saved.folder}: this training state cannot be gone on from exactly: {'; '.join(changed)}. Set them as "
            "they were, or start a new run from its weights with load_from"
        )


def _check_files(saved: SavedState, run: Training) -> None:
    """Refuse files of `torch.save` that are cut off; Accelerate goes on without a random state that it cannot read."""
    for name in ("optimizer.bin", f"random_states_{run.accelerator.process_index}.pkl"):
        path = saved.folder / name
        if path.exists() and not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path}: is damaged, so that this training state cannot be gone on from")


def _check_model(saved: SavedState, run: Training) -> None:
    """Refuse the weights of another model, naming the first tensor that differs and how many do."""
    path = saved.folder / "model.safetensors"
    if not path.exists():
        return  # sharded training keeps them in another form
    theirs = {name: tuple(value.shape) for name, value in read_weights(path).state.items()}
    own = {name: tuple(value.shape) for name, value in run.recognizer.state_dict().items()}
    differing = [name for name in {**own, **theirs} if own.get(name) != theirs.get(name)]
    if differing:
        first = differing[0]
        shapes = [str(shapes[first]) if first in shapes else "not there" for shapes in (theirs, own)]
        raise CheckpointError(
            f"{saved.folder}: this training state is that of another model: {len(differing)} of {len(own)} tensors "
            f"differ, the first is {first} (saved {shapes[0]}, in this model {shapes[1]}); choose the model as it was"
        )


def _tell_other_data(saved: SavedState, run: Training) -> None:
    for split, mark in run.fingerprints.items():
        was = saved.fingerprints.get(split, mark)
        if was != mark:
            run.log.warn(
                f"data.{split} is not what this run was trained with so far: its fingerprint is {mark}, was {was}; "
                "other videos, labels, file sizes or another decoder"
            )
