"""The files of a run: weights a reader can use, and the full state from which training goes on exactly.

A work directory holds

    log.jsonl               a line of JSON for every record
    config.py               the resolved config
    epoch_<n>.safetensors   weights after an epoch
    last.safetensors        the newest of them, best.safetensors the best (other names of the same files)
    state/                  everything that training needs to go on: weights, optimiser, scaler, random state, progress
    earlier_<n>/            all of that of an earlier run in the same folder
"""

import itertools
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from iwin.checkpoint.io import save_weights
from iwin.errors import CheckpointError, IwinError
from iwin.files import completed_folder, empty_folder, link, replace_folder, save_json
from iwin.models.recognizer import IwinRecognizer

RUN_MARKS = ("log.jsonl", "epoch_*.safetensors", "last.safetensors", "best.safetensors", "state", "state.old")
"""Files in a work directory that tell of an earlier run."""

RUN_EXTRAS = ("config.py", "bad_files.jsonl", "last_pred.pkl", "best_pred.pkl", "state.tmp")
"""What may lie beside them."""

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
        counted: what the current epoch's next record counts of the batches done (`Meter.sums`).
    """

    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_epoch: int | None = None
    counted: tuple[float, ...] = ()


@dataclass(frozen=True)
class SavedState:
    """What a saved state says of itself.

    Attributes:
        folder: where it lies.
        progress: where training stood.
        layout: what must be the same to go on from it.
        fingerprints: of the data, by split.
        settings: of the run (`RunConfig`), as JSON has them; None in a state that was saved without them.
    """

    folder: Path
    progress: Progress
    layout: Layout
    fingerprints: Mapping[str, str]
    settings: Mapping[str, Any] | None


@dataclass(frozen=True)
class WorkDir:
    """The folder of a run; only the main process writes to it, except for each process's random state.

    Attributes:
        path: the folder.
        keep: epoch checkpoints that are kept; None keeps all.
    """

    path: Path
    keep: int | None = None

    def set_aside(self) -> Path | None:
        """Move the files of an earlier run into a folder of their own; None where there was none.

        Raises:
            IwinError: if they cannot be moved.
        """
        if not any(path for pattern in RUN_MARKS for path in self.path.glob(pattern)):
            return None
        folder = next(path for n in itertools.count(1) if not (path := self.path / f"earlier_{n}").exists())
        try:
            folder.mkdir()
            for path in [path for pattern in (*RUN_MARKS, *RUN_EXTRAS) for path in self.path.glob(pattern)]:
                path.rename(folder / path.name)
        except OSError as error:
            raise IwinError(f"{folder}: the files of an earlier run cannot be moved there ({error.strerror})") from None
        return folder

    @property
    def state(self) -> Path:
        """Folder of the full training state."""
        return self.path / "state"

    def save_state(
        self, accelerator: Accelerator, progress: Progress, layout: Layout, metadata: Mapping[str, str]
    ) -> None:
        """Write the full state in the place of the old one.

        Args:
            accelerator: the run's.
            progress: where training stands.
            layout: what must be the same to go on from it.
            metadata: what checkpoints carry; the settings ("config") and the data's fingerprints in it are kept, to be
                compared with those of the run that goes on.

        Raises:
            IwinError: if it cannot be written; the old one is left as it was.
        """
        staging = self.state.with_name("state.tmp")
        try:
            if accelerator.is_main_process:
                empty_folder(staging)
            accelerator.wait_for_everyone()
            accelerator.save_state(str(staging))
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                save_json(staging / "progress.json", asdict(progress))
                save_json(staging / "layout.json", dict(layout))
                save_json(staging / "fingerprints.json", json.loads(metadata.get("fingerprints", "{}")))
                if "config" in metadata:
                    save_json(staging / "config.json", json.loads(metadata["config"]))
                replace_folder(staging, self.state)
        except (OSError, RuntimeError, SafetensorError, IwinError) as error:
            reason = _reason(error)
            if reason is None:
                raise
            shutil.rmtree(staging, ignore_errors=True)
            kept = "; the one before is kept" if self.state.exists() else ""
            raise IwinError(f"{self.state}: the training state cannot be written ({reason}){kept}") from None
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


def read_state(path: str | Path) -> SavedState:
    """What a saved state says of itself; nothing is loaded, and nothing changed.

    Args:
        path: the work directory or its state folder.

    Raises:
        CheckpointError: if there is no complete state.
    """
    folder = Path(path)
    if not (folder / "progress.json").exists():
        folder = completed_folder(folder / "state")
    try:
        found = {name: _read_json(folder / f"{name}.json") for name in ("progress", "layout", "fingerprints")}
        settings = _read_json(folder / "config.json") if (folder / "config.json").exists() else None
        progress = Progress(**found["progress"])
        place = (found["progress"]["epoch"], found["progress"]["batch"])
        if not all(type(number) is int and number >= 0 for number in place):
            raise ValueError
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: holds no training state to resume from; give the work directory of a run that saved one"
        ) from None
    except (OSError, ValueError, TypeError, KeyError):
        raise CheckpointError(
            f"{folder}: this training state is damaged: what is in its JSON files was not written by a run; start a "
            "new run from its weights with load_from"
        ) from None
    return SavedState(folder, progress, found["layout"], found["fingerprints"], settings)


def _read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise TypeError(path)
    return value


def _reason(error: Exception) -> str | None:
    """Why writing failed, in a line; None for errors that have nothing to do with writing."""
    if isinstance(error, RuntimeError):  # torch's archive writer hides the cause
        is_writer = any(name in str(error) for name in ("inline_container", "PytorchStreamWriter"))
        return "is there room on the disk?" if is_writer else None
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).strip().partition("\n")[0]
