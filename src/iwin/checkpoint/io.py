"""Checkpoint files: read without running code, written whole or not at all."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from iwin.errors import CheckpointError


@dataclass(frozen=True)
class Weights:
    """Tensors of a checkpoint file and what it says about them.

    Attributes:
        path: the file.
        state: tensors by name, wrappers such as "module." removed.
        metadata: strings that were saved beside them (empty for files of other programs).
    """

    path: Path
    state: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def read_weights(path: str | Path) -> Weights:
    """Read a .safetensors file or a .pth/.pt file of tensors; nothing in it is executed.

    A .pth file may hold the state dict itself or keep it under "state_dict" (mmcv) or "model" (the authors' image
    models).

    Raises:
        CheckpointError: if the file is missing, damaged, or holds no tensors or anything that would have to be run.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds something other than tensors and plain values, which is not loaded because it could run "
            f"code ({_first_sentence(error)})"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: is not a readable checkpoint ({_first_sentence(error)})") from None
    return Weights(path, _find_state(path, content))


def _read_safetensors(path: Path) -> Weights:
    try:
        with safetensors.safe_open(path, framework="pt") as archive:
            state = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 - not a mapping
            return Weights(path, state, dict(archive.metadata() or {}))
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is not a readable safetensors file ({_first_sentence(error)})") from None


def _first_sentence(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__


def _find_state(path: Path, content: object) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds no state dict but a {type(content).__name__}")
    state = {str(name).removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"{path}: holds no tensors under its top level, 'state_dict' or 'model'")
    return state


def save_weights(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata to a .safetensors file, atomically."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_atomically(Path(path), lambda temporary: save_file(tensors, temporary, metadata=dict(metadata)))


def save_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name, then move it to `path`: readers see the old one or the new one.

    Raises:
        CheckpointError: if the file cannot be written; the old one is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)


def empty_folder(path: Path) -> None:
    """Make a folder, without what an earlier attempt left in it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def replace_folder(staging: Path, path: Path) -> None:
    """Put a filled folder in the place of another.

    The old one stands as "<path>.old" for the moment between two renames; `recover_folder` undoes a crash there.
    """
    old = path.with_name(f"{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    staging.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(path: Path) -> Path:
    """The folder that `replace_folder` last completed; a crash between its renames is undone."""
    old = path.with_name(f"{path.name}.old")
    if not path.exists() and old.exists():
        old.rename(path)
    return path


def link(source: Path, target: Path) -> None:
    """Give a written file a second name, atomically and without a copy where the file system can."""

    def make(temporary: Path) -> None:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)

    write_atomically(target, make)
