import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iwin.engine.scores import as_scores, read_scores, write_scores
from iwin.errors import DataError

SUFFIXES = [".pkl", ".npy", ".yaml", ".json"]


def scores(videos: int = 5, classes: int = 4) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Scores of many magnitudes, the third video without any."""
    rows = np.random.default_rng(0).random((videos, classes)).astype(np.float32)
    rows[0] = [1e-30, 1e-5, 0.0, 1.0]
    rows[2] = np.nan
    return rows


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_scores_are_read_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    write_scores(tmp_path / f"scores{suffix}", scores())
    assert np.array_equal(read_scores(tmp_path / f"scores{suffix}"), scores(), equal_nan=True)


def test_a_pickle_is_a_list_of_arrays(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.pkl", scores())
    content = pickle.loads((tmp_path / "scores.pkl").read_bytes())
    assert isinstance(content, list)
    assert all(row.shape == (4,) and row.dtype == np.float32 for row in content)


def test_text_is_a_list_of_lists(tmp_path: Path) -> None:
    import yaml

    write_scores(tmp_path / "scores.json", scores())
    write_scores(tmp_path / "scores.yaml", scores())
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content == yaml.safe_load((tmp_path / "scores.yaml").read_text())
    assert content[2] is None
    assert all(isinstance(value, float) for row in content if row for value in row)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["arrays", "float64", "numpy scalars", "lists"])
def test_pickles_of_other_programs_are_read(tmp_path: Path, protocol: int, kind: str) -> None:
    rows = scores()
    content: Any = {
        "arrays": list(rows),
        "float64": list(rows.astype(np.float64)),
        "numpy scalars": [list(row) for row in rows],
        "lists": [None if np.isnan(row).any() else row.tolist() for row in rows],
    }[kind]
    (tmp_path / "scores.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    assert np.array_equal(read_scores(tmp_path / "scores.pkl"), rows, equal_nan=True)


def test_a_report_is_read_as_scores(tmp_path: Path) -> None:
    videos = [{"path": "a.mp4", "label": 0, "scores": [0.25, 0.75]}, {"path": "b.mp4", "label": 1, "scores": None}]
    (tmp_path / "report.json").write_text(json.dumps({"figures": {}, "videos": videos}))
    rows = read_scores(tmp_path / "report.json")
    assert np.array_equal(rows, np.array([[0.25, 0.75], [np.nan, np.nan]]), equal_nan=True)


class Attack:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "attack",
    [
        Attack(Path.touch, Path("touched")),
        Attack(eval, "open('touched', 'w')"),
        Attack(np.load, "anything.npy"),
        Attack(np.save, "touched", 1),
        Attack(io.open, "touched", "w"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: Any, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scores.pkl").write_bytes(pickle.dumps([attack], protocol=protocol))
    with pytest.raises(DataError, match=r"scores\.pkl: .* which could run code; only arrays are read"):
        read_scores(tmp_path / "scores.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.pkl"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scores.csv", b"", "score files end in"),
        ("scores.pkl", b"\x80\x04 damaged", "no readable"),
        ("scores.json", b"[[1, 2", "no readable"),
        ("scores.yaml", b"a: [", "no readable"),
        ("scores.yaml", b"!!python/object/apply:os.system ['touch touched']", "no readable"),
        ("scores.json", b"[]", "no list with the scores"),
        ("scores.json", b'{"a": 1}', "no list with the scores"),
        ("scores.json", b"[[1, 2], [1]]", "all of one length"),
        ("scores.json", b'[["a", "b"]]', "one list of numbers"),
        ("scores.json", b"[1, 2]", "one list of numbers"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_scores(tmp_path / name)


def test_a_missing_file_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.pkl: cannot be read"):
        read_scores(tmp_path / "nowhere.pkl")


def test_scores_and_labels_must_be_of_the_same_videos() -> None:
    rows, labels = scores(), np.zeros(5, dtype=np.int64)
    joined = as_scores(rows, labels, source="scores.pkl")
    assert joined.decoded.tolist() == [True, True, False, True, True]
    with pytest.raises(DataError, match="scores of 5 videos, but 4 are listed"):
        as_scores(rows, labels[:4], source="scores.pkl")
    with pytest.raises(DataError, match="no video was decoded"):
        as_scores(rows[2:3], labels[:1], source="scores.pkl")
