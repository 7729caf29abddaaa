"""Access to the golden numbers, and the rule that fills a model with weights without a weight file.

tests/golden/ holds a compact subset; the whole set (the `parity` marker) is looked for in $IWIN_GOLDEN, else in
../shared/golden beside the repository.
"""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

SUBSET = Path(__file__).parent / "golden"
FULL = Path(os.environ.get("IWIN_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))


def full_golden(name: str) -> Path:
    """Path of a file in the whole golden set; skips the test where none was named and none is beside the project."""
    if "IWIN_GOLDEN" not in os.environ and not FULL.is_dir():
        pytest.skip(f"the whole golden set is not here: {FULL}")
    return FULL / name


def load_json(path: Path) -> Any:
    """Contents of a golden JSON file."""
    return json.loads(path.read_text())


def load_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a golden npz file."""
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def generator(name: str) -> np.random.Generator:
    """The random generator that belongs to a name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed))


def rule_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """Value of the parameter `name`, a full state-dict key."""
    x = generator(name).standard_normal(shape, dtype=np.float32)
    last = name.rsplit(".", 1)[-1]
    if last == "bias":
        x = np.float32(0.1) * x
    elif last in {"time_embed", "absolute_pos_embed"}:
        x = np.float32(0.2) * x
    elif last == "weight" and len(shape) == 1:
        x = np.float32(1) + np.float32(0.1) * x
    elif last == "weight":
        x = np.float32(1 / math.sqrt(float(math.prod(shape[1:])))) * x
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


def rule_input(name: str) -> Tensor:
    """Input for a name like "input/1x3x32x56x56" (float32), "image/20x30x3" or "video/90x60x80" (uint8)."""
    kind, shape_text = name.split("/")
    shape = tuple(int(n) for n in shape_text.split("x"))
    if kind == "input":
        return torch.from_numpy(generator(name).standard_normal(shape, dtype=np.float32))
    shape = (*shape, 3) if kind == "video" else shape
    return torch.from_numpy(generator(name).integers(0, 256, size=shape, dtype=np.uint8))


def fill_by_rule(model: nn.Module) -> None:
    """Give every entry of the model's state dict its value by the weight rule."""
    state = {name: rule_weight(name, tuple(value.shape)) for name, value in model.state_dict().items()}
    model.load_state_dict(state)


def assert_golden(arrays: dict[str, npt.NDArray[Any]], key: str, value: Tensor, *, atol: float) -> None:
    """Compare a tensor with a stored one, whole or at its stored flat positions."""
    flat = value.detach().to(torch.float64).reshape(-1).numpy()
    index = arrays.get(f"{key}#idx")
    stored = arrays[key].astype(np.float64)
    if index is None:
        assert tuple(stored.shape) == tuple(value.shape), f"{key}: shape {tuple(value.shape)}, golden {stored.shape}"
        stored = stored.reshape(-1)
    else:
        flat = flat[index]
    np.testing.assert_allclose(flat, stored, rtol=0, atol=atol, err_msg=key)
