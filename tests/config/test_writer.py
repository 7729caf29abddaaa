"""A dumped config reads back to the same values."""

import random
from pathlib import Path
from typing import Any

import pytest

from iwin.config import dump_config, read_config, shipped_configs


def read_back(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    path = folder / "dumped.py"
    path.write_text(dump_config(data))
    return read_config(path)


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_survives(tmp_path: Path, name: str) -> None:
    data = read_config(name)
    assert read_back(tmp_path, data) == data


def random_value(rng: random.Random, depth: int) -> Any:
    if depth and rng.random() < 0.6:
        items = [random_value(rng, depth - 1) for _ in range(rng.randrange(5))]
        match rng.randrange(4):
            case 0:
                return items
            case 1:
                return tuple(items)
            case 2:
                return {rng.choice("abcdefgh") * rng.randrange(1, 30): item for item in items}
        return {rng.choice(["a-b", 7, -1, "class", "", "ü", 'q"']): item for item in items}
    texts = ["", "a'b", 'a"b', "line\nbreak\\n", "ünïcode", "{:05}", "x" * 120, "#", "\0"]
    return rng.choice([None, True, False, 0, -5, 10**30, 1.5, -0.0, 1e-300, 1e22, rng.choice(texts)])


@pytest.mark.parametrize("seed", range(200))
def test_random_values_survive(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    data = {name: random_value(rng, 5) for name in ("one", "_two", "three")}
    found = read_back(tmp_path, data)
    assert repr(found) == repr(data), "equal, tuples still tuples and ints still ints"


def test_lines_are_broken_only_where_they_are_long() -> None:
    text = dump_config({"short": {"a": (1,)}, "long": {"key": ["word " * 4] * 6, "other": 1}})
    item = repr("word " * 4)
    assert text == (
        f"short = dict(a=(1,))\nlong = dict(\n    key=[\n{6 * f'        {item},{chr(10)}'}    ],\n    other=1,\n)\n"
    )
