"""Score files in upstream's form: a list with one array of scores a video, in the order of the annotations.

Features of videos take the same form. `.pkl` holds numpy arrays, `.npy` one array, `.yaml` and `.json` lists of
numbers. A video that could not be decoded has NaN for scores in `.pkl` and `.npy`, null in the others.
"""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from iwin.engine.evaluate import Scores
from iwin.errors import DataError
from iwin.files import write_atomically

Rows = npt.NDArray[np.float32]
"""(videos, classes); NaN where a video has no scores."""


def write_scores(path: Path, rows: Rows) -> None:
    """Write scores, in the form that the suffix names, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_bytes(_WRITERS[path.suffix](rows)))


def read_scores(path: str | Path) -> Rows:
    """Read a score file of ours or upstream's, or the file of `iwin test --report`; nothing in it is executed.

    Raises:
        DataError: if there is no such file, or it holds no scores.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise DataError(f"{path}: score files end in {', '.join(_READERS)}")
    try:
        content = _READERS[path.suffix](path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged pickle can raise whatever it likes
        raise DataError(f"{path}: is no readable {path.suffix} file of scores ({_first_line(error)})") from None
    return _rows(content, path)


def as_scores(rows: Rows, labels: npt.NDArray[np.int64], *, source: str) -> Scores:
    """Scores that were read, with the labels that they are measured by.

    Args:
        rows: what `read_scores` gave.
        labels: the class of each video, (videos,), or 1 for each of its classes, (videos, classes).
        source: what the scores are called in messages.

    Raises:
        DataError: if there are not as many of the one as of the other, or no scores at all.
    """
    if len(rows) != len(labels):
        raise DataError(f"{source} holds scores of {len(rows)} videos, but {len(labels)} are listed")
    missing = _missing(rows)
    if len(missing) == len(rows):
        raise DataError(f"{source} holds no scores: no video was decoded")
    decoded = np.ones(len(rows), dtype=np.bool_)
    decoded[missing] = False
    return Scores(rows, labels, decoded)


def _rows(content: Any, path: Path) -> Rows:
    if isinstance(content, dict) and isinstance(content.get("videos"), list):
        content = [video.get("scores") if isinstance(video, dict) else video for video in content["videos"]]
    if not isinstance(content, list | tuple) or not content:
        raise DataError(f"{path}: holds no list with the scores of each video")
    width = next((len(row) for row in content if isinstance(row, list | tuple | np.ndarray)), 0)
    nothing = [np.nan] * width
    try:
        rows = np.array([nothing if row is None else row for row in content], dtype=np.float32)
    except (TypeError, ValueError):
        rows = np.empty(0, dtype=np.float32)
    if rows.ndim != 2 or not rows.size:
        raise DataError(f"{path}: needs one list of numbers a video, one number a class, and all of one length")
    return rows


def _missing(rows: Rows) -> list[int]:
    """Videos without scores."""
    return [index for index, row in enumerate(rows) if np.isnan(row).all()]


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# ---------------------------------------------------------------------------------------------- forms


class _Unpickler(pickle.Unpickler):
    """Reads numpy arrays and plain values, and refuses everything else: a pickle can name any function to be called."""

    _MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
    _NAMES = ("ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer")

    def find_class(self, module: str, name: str) -> Any:
        # Pickles of bytes from protocols before 3 are strings that this function encodes.
        if (module in self._MODULES and name in self._NAMES) or (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which could run code; only arrays are read")


def _read_yaml(data: bytes) -> Any:
    import yaml  # comes with accelerate

    return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders


def _lists(rows: Rows) -> list[list[float] | None]:
    missing = set(_missing(rows))
    return [None if index in missing else row.tolist() for index, row in enumerate(rows)]


def _write_pickle(rows: Rows) -> bytes:
    # Protocol 4 is the newest that the Python of upstream's days reads.
    return pickle.dumps(list(rows), protocol=4)


def _write_json(rows: Rows) -> bytes:
    lines = ",\n".join(json.dumps(row) for row in _lists(rows))
    return f"[{lines}]\n".encode()


def _write_yaml(rows: Rows) -> bytes:
    """YAML's own writer takes minutes for a thousand videos; a row of JSON is a row of YAML."""

    def number(value: float) -> str:
        # YAML takes 1e-05 for text and 1.0e-05 for a number.
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text

    lines = ["- null" if row is None else f"- [{', '.join(map(number, row))}]" for row in _lists(rows)]
    return ("\n".join(lines) + "\n").encode()


def _write_npy(rows: Rows) -> bytes:
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=False)
    return file.getvalue()


_WRITERS: dict[str, Callable[[Rows], bytes]] = {
    ".pkl": _write_pickle,
    ".npy": _write_npy,
    ".yaml": _write_yaml,
    ".json": _write_json,
}
_READERS: dict[str, Callable[[bytes], Any]] = {
    ".pkl": lambda data: _Unpickler(io.BytesIO(data)).load(),
    ".npy": lambda data: list(np.load(io.BytesIO(data), allow_pickle=False)),
    ".yaml": _read_yaml,
    ".json": json.loads,
}
