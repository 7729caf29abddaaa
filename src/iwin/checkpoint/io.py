"""Checkpoint files: read without running code, written whole or not at all.

Three layouts are read and two of them written: our safetensors with metadata, upstream's video files
`{"meta": …, "state_dict": …}` (mmcv) and the authors' image files `{"model": …, "config": …}`; also bare state dicts.
"""

import json
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from iwin.errors import CheckpointError
from iwin.files import write_atomically

# ---------------------------------------------------------------------------------------------- reading

WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""

UPSTREAM = "iwin_upstream"
"""Metadata entry of a safetensors file that keeps what an upstream file said beside its tensors, as JSON."""


@dataclass(frozen=True)
class Weights:
    """Tensors of a checkpoint file and what it says about them.

    Attributes:
        path: the file.
        state: tensors by name, wrappers such as "module." removed.
        metadata: our own strings that were saved beside them (empty for files of other programs).
        others: what else a file of another program holds beside the tensors, such as "meta", "config" or "optimizer";
            its objects are stand-ins that only hold values.
    """

    path: Path
    state: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)


class StandIn:
    """Takes the place of a harmless object of another program: keeps what it was made of, does nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


# Names that real checkpoints hold beside their tensors (a run's config and arguments, scores as numpy numbers), and
# what is made in their place. A CfgNode is a dict, and the unpickler fills no dict class but its own few.
_HARMLESS: list[Any] = [
    (OrderedDict, "yacs.config.CfgNode"),
    *(
        (StandIn, name)
        for name in (
            "argparse.Namespace",
            "numpy.dtype",
            "numpy.ndarray",
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
            "numpy.core.multiarray._reconstruct",
            "numpy._core.multiarray._reconstruct",
            "pathlib.PosixPath",
            "pathlib._local.PosixPath",
        )
    ),
]


def weights_format(path: Path) -> Literal["safetensors", "torch"] | None:
    """What kind of checkpoint a file begins like, whatever its name; None for neither."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[4:] == b"\0\0\0\0{":  # the length of a JSON header, then the header
        return "safetensors"
    return "torch" if start.startswith((b"PK\x03\x04", b"\x80\x02")) else None  # a zip archive, or before 2020 a pickle


def read_weights(path: str | Path) -> Weights:
    """Read a checkpoint file; nothing in it is executed.

    A file of `torch.save` may hold the state dict itself or keep it under "state_dict" (mmcv) or "model" (the authors'
    image models).

    Args:
        path: a file; `source.open_weights` also takes addresses.

    Raises:
        CheckpointError: if the file is missing, damaged, or holds no tensors or anything that would have to be run.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; name a checkpoint file in it, such as best.safetensors")
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint file")
    try:
        kind = weights_format(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "torch":
        return _read_torch(path)
    raise CheckpointError(f"{path}: is not a readable checkpoint (neither safetensors nor written by torch.save)")


def _read_torch(path: Path) -> Weights:
    try:
        # An open file: given a path, torch.load would judge the format by its suffix.
        with path.open("rb") as file, torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds something other than tensors and plain values, which is not loaded because it could run "
            f"code ({_reason(error)})"
        ) from None
    except Exception as error:  # a damaged file can make the unpickler fail in any way
        raise CheckpointError(f"{path}: is not a readable checkpoint ({_reason(error)})") from None
    state, others = _find_state(path, content)
    meta = others.get("meta")
    ours = meta.get("iwin") if isinstance(meta, Mapping) else None
    metadata = {str(key): str(value) for key, value in ours.items()} if isinstance(ours, Mapping) else {}
    return Weights(path, state, metadata, others)


def _read_safetensors(path: Path) -> Weights:
    try:
        with safetensors.safe_open(path, framework="pt") as archive:
            state = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 - not a mapping
            metadata = dict(archive.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is not a readable safetensors file ({_reason(error)})") from None
    try:
        others = json.loads(metadata.pop(UPSTREAM, "{}"))
    except ValueError as error:
        raise CheckpointError(f"{path}: its metadata entry {UPSTREAM!r} is not valid JSON ({error})") from None
    return Weights(path, _unwrapped(state), metadata, others)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "WeightsUnpickler error" in line]
    text = lines[0].partition("error: ")[2] if lines else str(error).strip().split("\n")[0]
    return text.split(". ")[0].removesuffix(" was not an allowed global by default") or type(error).__name__


def _unwrapped(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    state = {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            bare = str(name)
            while bare.startswith(WRAPPERS):
                bare = bare.partition(".")[2]
            state[bare] = value
    return state


def _find_state(path: Path, content: object) -> tuple[dict[str, Tensor], dict[str, Any]]:
    others: dict[str, Any] = {}
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            others |= {str(name): value for name, value in content.items() if name != key}
            content = content[key]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds no state dict but a {type(content).__name__}")
    state = _unwrapped(content)
    if not state:
        raise CheckpointError(f"{path}: holds no tensors under its top level, 'state_dict' or 'model'")
    return state, others


# ---------------------------------------------------------------------------------------------- writing


def save_weights(
    path: str | Path,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    others: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors and metadata to a .safetensors file, atomically; the same ones give the same bytes.

    Args:
        path: the file.
        state: tensors by name.
        metadata: strings to keep beside them.
        others: what an upstream file said beside its tensors (`Weights.others`); its "meta" and "config" are kept.
    """
    tensors = _tensors(state)
    kept = _kept(others or {}, metadata)
    if kept:
        metadata = {**metadata, UPSTREAM: json.dumps(kept)}

    def write(temporary: Path) -> None:
        temporary.touch()
        mode = temporary.stat().st_mode  # which the umask decides, while safetensors makes files for their owner alone
        try:
            save_file(tensors, temporary, metadata=dict(metadata))
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{path}: cannot be written ({_reason(error)})") from None
        temporary.chmod(mode)
        _sort_metadata(temporary)

    write_atomically(Path(path), write)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file, which stand in another order each time they are written, in theirs."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size)
        if len(text) == size:  # else safetensors writes its header in a form of its own, which is as good
            file.seek(8)
            file.write(text)


def save_upstream(
    path: str | Path,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    others: Mapping[str, Any] | None = None,
) -> None:
    """Write a .pth file in upstream's layout, atomically; nothing in it has to be run to read it.

    Video weights stand under "state_dict" beside "meta", an image model's under "model".

    Args:
        path: the file.
        state: tensors by name.
        metadata: our strings; they stand under meta["iwin"], the text of the config also where mmcv keeps its own.
        others: what an upstream file said beside its tensors (`Weights.others`); its "meta" and "config" are kept.
    """
    tensors = _tensors(state)
    kept = _kept(others or {}, metadata)
    meta: dict[str, Any] = {"config": metadata["config_file"]} if "config_file" in metadata else {}
    meta |= kept.pop("meta", {})
    meta |= {"iwin": dict(metadata)} if metadata else {}
    projection = tensors.get("patch_embed.proj.weight")
    image = projection is not None and projection.ndim == 4
    if meta or not image:
        kept["meta"] = meta
    content = {"model" if image else "state_dict": tensors, **kept}

    def write(temporary: Path) -> None:
        try:
            with temporary.open("wb") as file:  # given a path, torch.save would put its temporary name into the file
                torch.save(content, file)
        except RuntimeError:  # torch's archive writer hides the cause
            raise CheckpointError(f"{path}: cannot be written whole; is there room on the disk?") from None

    write_atomically(Path(path), write)


def _tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict's tensors on the CPU, each with memory of its own: safetensors takes no others."""
    tensors = {}
    taken = set()
    for name, value in state.items():
        value = value.detach().cpu().contiguous()
        memory = value.untyped_storage()
        if memory.data_ptr() in taken or memory.nbytes() != value.nbytes:
            value = value.clone()
        taken.add(memory.data_ptr())
        tensors[name] = value
    return tensors


def _kept(others: Mapping[str, Any], metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a rewritten checkpoint keeps of another program's values, as JSON can hold it: no training state.

    What `save_upstream` derives from our metadata is left out, so that going there and back adds nothing.
    """
    chosen = {key: value for key, value in others.items() if key in ("meta", "config") and isinstance(value, Mapping)}
    kept: dict[str, Any] = json.loads(json.dumps(chosen, default=lambda _: None, skipkeys=True))
    meta = kept.pop("meta", {})
    meta.pop("iwin", None)
    if "config" in meta and meta["config"] == metadata.get("config_file"):
        del meta["config"]
    return {**kept, "meta": meta} if meta else kept
