"""The files of a run: weights a reader can use, and the full state from which training goes on exactly.

A work directory holds

    log.jsonl               a line of JSON for every record
    config.py               the resolved config
    epoch_<n>.safetensors   weights after an epoch
    last.safetensors        the newest of them, best.safetensors the best (other names of the same files)
    state/                  everything that training needs to go on: weights, optimiser, scaler, random state, progress
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import Accelerator

from iwin.checkpoint.io import save_weights
from iwin.errors import CheckpointError
from iwin.files import empty_folder, link, recover_folder, replace_folder, save_json
from iwin.models.recognizer import IwinRecognizer

Layout = Mapping[str, int]
"""What decides which videos an optimiser step sees: processes, batch size, accumulation, videos, seed."""


@dataclass
class Progress:
    """Where training stands.

    Attributes:
        epoch: epochs done.
        batch: batches done in the current epoch.
        best: best value so far of the score that decides, None before the first validation.
        best_epoch: epoch that gave it, counted from 1.
    """

    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_epoch: int | None = None


@dataclass(frozen=True)
class WorkDir:
    """The folder of a run; only the main process writes to it, except for each process's random state.

    Attributes:
        path: the folder.
        keep: epoch checkpoints that are kept; None keeps all.
    """

    path: Path
    keep: int | None = None

    @property
    def state(self) -> Path:
        """Folder of the full training state."""
        return self.path / "state"

    def save_state(
        self, accelerator: Accelerator, progress: Progress, layout: Layout, fingerprints: Mapping[str, str]
    ) -> None:
        """Write the full state in the place of the old one.

        Args:
            accelerator: the run's.
            progress: where training stands.
            layout: what must be the same to go on from it.
            fingerprints: of the data, by split; for whoever wants to know.
        """
        staging = self.state.with_name("state.tmp")
        if accelerator.is_main_process:
            empty_folder(staging)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(staging))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            save_json(staging / "progress.json", asdict(progress))
            save_json(staging / "layout.json", dict(layout))
            save_json(staging / "fingerprints.json", dict(fingerprints))
            replace_folder(staging, self.state)
        accelerator.wait_for_everyone()

    def save_epoch(self, model: IwinRecognizer, epoch: int, *, metadata: Mapping[str, str]) -> Path:
        """Write the weights after an epoch (counted from 1), which also become the last."""
        path = self.path / f"epoch_{epoch}.safetensors"
        save_weights(path, model.state_dict(), {**metadata, "epoch": str(epoch)})
        link(path, self.path / "last.safetensors")
        if self.keep is not None:
            epochs = sorted(self.path.glob("epoch_*.safetensors"), key=lambda old: int(old.stem.removeprefix("epoch_")))
            for old in epochs[: -self.keep]:
                old.unlink()
        return path

    def save_best(self, progress: Progress) -> None:
        """Give the weights of the epoch just saved the name of the best, and remember that with the state."""
        link(self.path / f"epoch_{progress.epoch}.safetensors", self.path / "best.safetensors")
        save_json(self.state / "progress.json", asdict(progress))


def load_state(path: str | Path, accelerator: Accelerator, layout: Layout) -> Progress:
    """Restore everything that `WorkDir.save_state` wrote, into the objects that the accelerator prepared.

    Args:
        path: the work directory or its state folder.
        accelerator: the run's.
        layout: the run's; it must be that of the state.

    Raises:
        CheckpointError: if there is no complete state, or it belongs to another model or layout.
    """
    folder = Path(path)
    if not (folder / "progress.json").exists():
        folder = folder / "state"
        if accelerator.is_main_process:
            recover_folder(folder)
        accelerator.wait_for_everyone()
    try:
        progress = Progress(**json.loads((folder / "progress.json").read_text()))
        saved = json.loads((folder / "layout.json").read_text())
    except (OSError, ValueError, TypeError):
        raise CheckpointError(
            f"{path}: holds no training state to resume from; give the work directory of a run that saved one"
        ) from None
    changed = [f"{name} is {new}, was {saved.get(name)}" for name, new in layout.items() if saved.get(name) != new]
    if changed:
        raise CheckpointError(
            f"{folder}: this training state cannot be gone on from exactly: {'; '.join(changed)}. Set them as they "
            "were, or start a new run from its weights with load_from"
        )
    try:
        accelerator.load_state(str(folder))
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"{folder}: this training state does not fit the run ({error})") from None
    return progress
