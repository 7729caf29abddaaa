"""`--cfg-options` follows the grammar of mmcv's DictAction."""

from pathlib import Path
from typing import Any

import pytest

from iwin.config import read_config
from iwin.errors import ConfigError

FILE = """
a = dict(b=dict(c=1, d=[1, dict(e=2)], t=(1, 2)), none=None)
labels = {93: 94}
"""


def read(folder: Path, *options: str) -> dict[str, Any]:
    path = folder / "config.py"
    path.write_text(FILE)
    return read_config(path, options)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("007", 7),
        ("1.5", 1.5),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("2.", 2.0),
        ("true", True),
        ("FALSE", False),
        ("None", None),
        ("none", "none"),
        ("", ""),
        ("nan", "nan"),
        ("inf", "inf"),
        ("1_000", "1_000"),
        ("text", "text"),
        ("a=b", "a=b"),
        ("'quoted'", "quoted"),
        ('"1"', 1),
        ("my videos/list one.txt", "my videos/list one.txt"),
        ("s3://bucket/x?a=1&b=2", "s3://bucket/x?a=1&b=2"),
        ("img_{:05}.jpg", "img_{:05}.jpg"),
        ("clip(1).mp4", "clip(1).mp4"),
        ("1,2,3", [1, 2, 3]),
        ("a, b", ["a", "b"]),
        ("a,", ["a"]),
        ("[1,2]", [1, 2]),
        ("[]", []),
        ("()", ()),
        ("(1)", (1,)),
        ("[(1,2),(a,true)]", [(1, 2), ("a", True)]),
        ("[[1],[2,[3]]]", [[1], [2, [3]]]),
        ("[1],[2]", [[1], [2]]),
        ("(0.9, 0.999)", (0.9, 0.999)),
        ("\"['a','b']\"", ["a", "b"]),
    ],
)
def test_values(tmp_path: Path, text: str, value: Any) -> None:
    found = read(tmp_path, f"x={text}")["x"]
    assert found == value
    assert type(found) is type(value)


def test_key_paths_reach_into_dicts_lists_and_tuples(tmp_path: Path) -> None:
    data = read(tmp_path, "a.b.c=5", "a.b.d.1.e=6", "a.b.t.0=7", "a.new.deep=8", "a.none.x=9", "labels.93=5")
    assert data["a"] == {"b": {"c": 5, "d": [1, {"e": 6}], "t": (7, 2)}, "none": {"x": 9}, "new": {"deep": 8}}
    assert data["labels"] == {93: 5}


def test_lists_replace_and_later_options_win(tmp_path: Path) -> None:
    assert read(tmp_path, "a.b.d=[3]", "a.b.c=2", "a.b.c=3")["a"]["b"] == {"c": 3, "d": [3], "t": (1, 2)}


def test_an_option_changes_one_place_and_not_what_shares_its_value(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text("steps = [dict(size=1)]\ntrain = dict(pipeline=steps)\nval = dict(pipeline=steps)")
    data = read_config(path, ["train.pipeline.0.size=2"])
    assert (data["train"]["pipeline"], data["val"]["pipeline"], data["steps"]) == (
        [{"size": 2}],
        [{"size": 1}],
        [{"size": 1}],
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("a.b.c", "options have the form key.path=value"),
        ("=3", "options have the form key.path=value"),
        ("a..b=3", "options have the form key.path=value"),
        ("a.b.d.2=3", "'2' is not one of the 2 places 0 .. 1"),
        ("a.b.d.-1=3", "'-1' is not one of the 2 places"),
        ("a.b.d.x=3", "'x' is not one of the 2 places"),
        ("a.b.c.x=3", "there is no 'x' inside 1 (set at"),
        ("x=[1,2", "the brackets do not match"),
        ("x=[1,2)", "the brackets do not match"),
        ("x=1,2]", "the brackets do not match"),
        ("x=" + "[" * 30 + "]" * 30, "the brackets are nested too deeply"),
        ("x=1e999", "inf is not a finite number"),
        ("x=" + "9" * 5000, "inf is not a finite number"),
        ("x=" + "9" * 80, "the number is too large"),
        (".".join("a" * 30) + "=1", "cannot be set by an option"),
        ("_base_=other.py", "'_base_' cannot be set by an option"),
        ("a._delete_=True", "'a._delete_' cannot be set by an option"),
        ("__x=1", "'__x' cannot be set by an option"),
        ("class=1", "'class' cannot be set by an option"),
        ("a-b=1", "'a-b' cannot be set by an option"),
    ],
)
def test_bad_options_are_quoted_in_the_error(tmp_path: Path, option: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, option)
    assert str(error.value).startswith(f"option '{option}': ")
    assert message in str(error.value)
