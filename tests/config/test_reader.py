"""Config files are read as data, by mmcv's rules, and nothing in them runs."""

from pathlib import Path
from typing import Any

import pytest

from iwin.config import load_config, read_config
from iwin.errors import ConfigError


def written(folder: Path, text: str, name: str = "config.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(folder: Path, text: str) -> dict[str, Any]:
    return read_config(written(folder, text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x = 1", 1),
        ("x = -2.5", -2.5),
        ("x = +3", 3),
        ("x = 'a' 'b'", "ab"),
        ("x = None", None),
        ("x = [1, (2, 3), (), (4,), True]", [1, (2, 3), (), (4,), True]),
        ("x = dict(a=1, **{'b-c': 2}, d={3: 'three'})", {"a": 1, "b-c": 2, "d": {3: "three"}}),
        ("x = {**dict(a=1, b=2), 'b': 3}", {"a": 1, "b": 3}),
        ("x = 2 * 3 + 10 // 4 - 7 % 4 + 2 ** -1", 5.5),
        ("x = 8 / 2", 4.0),
        ("x = 'img_' + '{:05}.jpg'", "img_{:05}.jpg"),
        ("x = [1] + [2]", [1, 2]),
        ("x = (1,) + (2,)", (1, 2)),
        ("y = [1, 2]\nx = [0, *y]", [0, 1, 2]),
        ("y = dict(a=[5, 6])\nx = y['a'][-1]", 6),
        ("x = 1\nx = dict(a=x)\nx = dict(b=x)", {"b": {"a": 1}}),
    ],
)
def test_literals_names_and_arithmetic(tmp_path: Path, text: str, value: Any) -> None:
    found = read(tmp_path, text)["x"]
    assert found == value
    assert type(found) is type(value)


def test_docstring_comments_and_private_names(tmp_path: Path) -> None:
    assert read(tmp_path, '"""About it."""\n# more\n__private = 3\n_kept = __private + 1\n"""text"""') == {"_kept": 4}


# ------------------------------------------------------------------------------------------------ inheritance


def test_a_childs_dicts_merge_into_its_bases(tmp_path: Path) -> None:
    written(tmp_path, "model = dict(a=1, b=dict(c=[1, 2], d=2))\nsteps = [1]", "base/one.py")
    written(tmp_path, "other = dict(x=1)", "base/two.py")
    text = "_base_ = ['base/one.py', './base/two.py']\nmodel = dict(b=dict(c=[3]))\nsteps = [2]"
    assert read(tmp_path, text) == {"model": {"a": 1, "b": {"c": [3], "d": 2}}, "steps": [2], "other": {"x": 1}}


def test_delete_replaces_instead_of_merging(tmp_path: Path) -> None:
    written(tmp_path, "lr = dict(policy='step', step=[1])\nopt = dict(type='SGD')", "base.py")
    text = "_base_ = 'base.py'\nlr = dict(_delete_=True, policy='fixed')\nopt = dict(_delete_=False, lr=1)"
    assert read(tmp_path, text) == {"lr": {"policy": "fixed"}, "opt": {"type": "SGD", "lr": 1}}
    assert read(tmp_path, "new = dict(_delete_=True, a=1)") == {"new": {"a": 1}}


def test_a_dict_takes_the_place_of_none(tmp_path: Path) -> None:
    written(tmp_path, "fp16 = None", "base.py")
    assert read(tmp_path, "_base_ = 'base.py'\nfp16 = dict(loss_scale=512.0)") == {"fp16": {"loss_scale": 512.0}}


def test_bases_of_bases_and_files_outside_the_working_directory(tmp_path: Path) -> None:
    written(tmp_path, "a = 1", "deep/er/root.py")
    written(tmp_path, "_base_ = 'er/root.py'\nb = dict(c=1)", "deep/middle.py")
    path = written(tmp_path, "_base_ = '../deep/middle.py'\nb = dict(d=2)", "mine/config.py")
    loaded = load_config(path)
    assert loaded.data == {"a": 1, "b": {"c": 1, "d": 2}}
    assert loaded.origin(("b", "c")) == f"{(tmp_path / 'deep/middle.py').resolve()}:2"


def test_a_shipped_config_is_a_base_by_its_name(tmp_path: Path) -> None:
    data = read(tmp_path, "_base_ = 'iwin_tiny_patch244_window77_kinetics400_1k'\ntotal_epochs = 3")
    assert (data["total_epochs"], data["model"]["backbone"]["embed_dim"]) == (3, 96)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "_base_ = 'base.py'\ny = dict(**norm)",
            r"config.py:2: 'norm' is not assigned above; the names of a _base_",
        ),
        ("_base_ = 'base.py'\nnorm = 1\nlr = dict(a=1)", r"config.py:3: 'lr' is a dict here but 5 in .*base.py:2"),
        ("_base_ = ['base.py', 'twin.py']", r"config.py:1: two _base_ files set 'lr': .*base.py:2 and .*twin.py:1"),
        ("_base_ = 'gone.py'", r"config.py:1: the _base_ file gone.py does not exist"),
        ("_base_ = 3", r"config.py:1: _base_ must be a file name"),
        ("_base_ = 'config.py'", r"config.py:1: the _base_ files go in a circle through config.py"),
        ("_base_ = 'ring.py'", r"ring.py:1: the _base_ files go in a circle through config.py"),
        ("_base_ = 'notes.yaml'", r"notes.yaml: a config file's name must end in .py"),
    ],
)
def test_inheritance_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    written(tmp_path, "norm = dict(mean=1)\nlr = 5", "base.py")
    written(tmp_path, "lr = 6", "twin.py")
    written(tmp_path, "_base_ = 'config.py'", "ring.py")
    written(tmp_path, "lr: 6", "notes.yaml")
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os", "config.py:1: an import is not understood here; config files are data"),
        ("\nfrom os import system", "config.py:2: an import"),
        ("x = __import__('os').system('true')", "config.py:1: a call is not understood here; only dict"),
        ("x = open('/etc/passwd')", "a call"),
        ("print(1)", "a call"),
        ("x = dict.fromkeys([1])", "a call"),
        ("x = ().__class__", "an attribute"),
        ("x = [i for i in (1, 2)]", "a comprehension"),
        ("x = {i: 1 for i in (1, 2)}", "a comprehension"),
        ("x = lambda: 1", "Python's Lambda"),
        ("x = 1 if True else 2", "Python's IfExp"),
        ("if True:\n    x = 1", "Python's If"),
        ("for x in [1]:\n    y = 1", "Python's For"),
        ("def f():\n    pass", "Python's FunctionDef"),
        ("class A:\n    pass", "Python's ClassDef"),
        ("x: int = 3", "Python's AnnAssign"),
        ("x = (y := 3)", "Python's NamedExpr"),
        ("x = 1 < 2", "Python's Compare"),
        ("x = not True", "Python's UnaryOp"),
        ("x = [1, 2][0:1]", "Python's Slice"),
        ("x = f'{1}'", "an f-string"),
        ("x = {1, 2}", "a set"),
        ("x = {{ fileDirname }}", "a set"),
        ("x = '{{ fileDirname }}/data'", "mmcv's {{ ... }} variables are not supported"),
        ("x = 1\nx += 1", "config.py:2: an update of a name"),
        ("x = [1]\nx[0] = 2", "config.py:2: an assignment to anything but a name"),
        ("x, y = 1, 2", "an assignment to anything but a name"),
        ("x = 1\ndel x", "config.py:2: del"),
        ("x = b'bytes'", "a bytes is no value of a config"),
        ("x = ...", "a ellipsis is no value"),
        ("x = 2j", "a complex is no value"),
        ("dict = 3", "no value may be named dict"),
        ("x = dict([('a', 1)])", "dict(...) takes no positional argument"),
        ("x = dict(a=1, **dict(a=2))", "dict(...) has 'a' twice"),
        ("x = dict(a=1, a=2)", "dict(...) has 'a' twice"),
        ("x = dict(**[1])", "** unpacks only dicts"),
        ("x = [*3]", "* unpacks only lists and tuples"),
        ("x = {1.5: 2}", "a key must be text or a whole number"),
        ("train = 1\nx = trian", "config.py:2: 'trian' is not assigned above (did you mean 'train'?)"),
        ("x = dict(a=1)['b']", "there is no ['b'] in this value"),
        ("x = [1]['b']", "there is no ['b'] in this value"),
        ("x = [1][5]", "there is no [5] in this value"),
        ("x = 'abc'[0]", "there is no [0] in this value"),
        ("x = 'a' * 3", "arithmetic works on numbers"),
        ("x = '%s' % 'a'", "arithmetic works on numbers"),
        ("x = [1] * 3", "arithmetic works on numbers"),
        ("x = 1 << 3", "arithmetic works on numbers"),
        ("x = True + True", "arithmetic works on numbers"),
        ("x = -'a'", "Python's UnaryOp"),
        ("x = 1 / 0", "the arithmetic fails: division by zero"),
        ("x = (-8) ** 0.5", "the result is a complex number"),
        ("x = 1 +", "config.py:1: not valid Python"),
        ("x = 1\n  y = 2", "config.py:2: not valid Python"),
        ("x = '\0'", "not valid Python"),
    ],
)
def test_whatever_is_more_than_data_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 10 ** 10 ** 10", "an exponent above 256 is not computed"),
        ("x = 10 ** 200", "the number is too large"),
        ("x = 2.0 ** 256 ** 1\ny = x ** 100", "the arithmetic fails"),
        ("x = " + "9" * 5000, "not valid Python"),
        ("x = 0x" + "f" * 5000, "the number is too large"),
        ("x = 1e999", "inf is not a finite number"),
        ("x = 1\n" + "x = [x, x]\n" * 40, "too large or too deeply nested"),
        ("x = [1]\n" + "x = x + x\n" * 40, "too large or too deeply nested"),
        ("x = 'a'\n" + "x = x + x\n" * 40, "too large or too deeply nested"),
        ("x = dict()\n" + "x = dict(a=x)\n" * 100, "too large or too deeply nested"),
        ("x = " + "[" * 60 + "]" * 60, "too large or too deeply nested"),
        ("x = " + "-" * 120 + "1", "the expression is nested too deeply"),
        ("x = " + "1 + " * 300 + "1", "the expression is nested too deeply"),
        ("x = " + "(" * 100_000, "not valid Python"),
        ("x = " + "-" * 100_000 + "1", "not valid Python"),
        ("x = '" + "a" * 1_000_000 + "'", "larger than 1,000,000 bytes"),
    ],
    ids=lambda text: text[:20],
)
def test_hostile_sizes_are_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert message in str(error.value)


def test_a_tree_of_bases_cannot_grow_without_bound(tmp_path: Path) -> None:
    written(tmp_path, "", "level0.py")
    for level in range(1, 12):
        written(tmp_path, f"_base_ = ['level{level - 1}.py', 'level{level - 1}.py']", f"level{level}.py")
    with pytest.raises(ConfigError, match="more than 64 files are chained"):
        read_config(tmp_path / "level11.py")


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"x = '\xe4'")
    with pytest.raises(ConfigError, match="not valid Python"):
        read_config(tmp_path / "latin.py")


# ------------------------------------------------------------------------------------------------ origins


def test_every_value_remembers_the_line_it_was_written_on(tmp_path: Path) -> None:
    text = "steps = [\n    dict(type='A',\n         size=3),\n]\ndata = dict(\n    pipeline=steps)\n"
    loaded = load_config(written(tmp_path, text), ["data.extra.key=1"])

    def line(*path: str | int) -> str:
        return loaded.origin(path).rpartition("config.py:")[2]

    assert line("steps", 0, "size") == "3"
    assert line("data", "pipeline") == "6", "a name stands where it is used"
    assert line("data", "pipeline", 0, "size") == "3", "what it holds, where it was written"
    assert line("data", "missing") == "5", "what is missing, at what should hold it"
    assert loaded.origin(("data", "extra", "key")) == "option 'data.extra.key=1'"


def test_paths_are_shown_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "import os", "sub/config.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^sub/config\.py:1: "):
        read_config("sub/config.py")
