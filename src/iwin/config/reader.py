"""Upstream-style (mmcv) Python config files, read as data.

A config file is a list of assignments of literals:

    _base_ = ["../_base_/default_runtime.py"]
    norm = dict(mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0])
    pipeline = [dict(type="Normalize", **norm)]

It is parsed with `ast`, and `expressions` works out the values; nothing in it is ever executed.

The rules of inheritance are mmcv 1.3.3's: `_base_` names one file or several, relative to the file; a child's dicts
merge into the base's (`tree.merge`); several bases must not set the same name; a file sees only its own names, not its
bases'; names that begin with two underscores stay private to the file. One rule is ours: `_base_` may be the name
alone of a shipped config.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwin.config.expressions import Expressions
from iwin.config.options import apply_option
from iwin.config.shipped import find_config, shipped_configs
from iwin.config.tree import Key, Node, entries, merge, origin_of, plain
from iwin.errors import ConfigError

BASE_KEY = "_base_"

_MAX_BYTES = 1_000_000
_MAX_FILES = 64  # in one tree of bases


@dataclass(frozen=True)
class LoadedConfig:
    """A config as it was read: its file with all bases merged in, and the options applied.

    Attributes:
        path: the file.
        tree: every value with its origin.
        data: the same as plain dicts, lists, tuples and scalars.
        options: the `key.path=value` texts that were applied.
        file_names: the top-level names that the files set, before the options.
    """

    path: Path
    tree: Node
    data: dict[str, Any]
    options: tuple[str, ...]
    file_names: frozenset[str]

    def origin(self, path: Sequence[Key]) -> str:
        """`file:line` or option that gave the value at a key path, else the dict that could hold it."""
        return origin_of(self.tree, path)


def load_config(config: str | Path, options: Sequence[str] = ()) -> LoadedConfig:
    """Read a config file, its bases and the options given with it, remembering where each value came from.

    Args:
        config: path of the file, or the name of a shipped config.
        options: `key.path=value` texts in the grammar of `--cfg-options`, applied in order.

    Raises:
        ConfigError: the file or an option cannot be read.
    """
    path = find_config(config)
    tree = _File(path, chain=(), opened=[]).read()
    file_names = frozenset(str(name) for name in entries(tree))
    for option in options:
        tree = apply_option(tree, option)
    return LoadedConfig(path, tree, plain(tree), tuple(options), file_names)


def read_config(config: str | Path, options: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved content of a config as a plain dict; arguments as in `load_config`."""
    return load_config(config, options).data


class _File:
    """One config file being read.

    Args:
        path: the file.
        chain: the files that this one is a base of, to find circles.
        opened: every file opened so far, to bound their number.
    """

    def __init__(self, path: Path, *, chain: tuple[Path, ...], opened: list[Path]) -> None:
        self.path = path.resolve()
        self.label = _shown(self.path)
        self.chain = (*chain, self.path)
        self.opened = opened
        self.base = Node({}, f"{self.label}:1")
        self.names: dict[str, Node] = {}
        self.expressions = Expressions(self.label, self.names)

    def read(self) -> Node:
        """The file's public names, merged into its bases'."""
        for statement in self._parse().body:
            self._statement(statement)
        own: dict[Key, Node] = {name: node for name, node in self.names.items() if not name.startswith("__")}
        return merge(self.base, Node(own, f"{self.label}:1"))

    def _parse(self) -> ast.Module:
        self.opened.append(self.path)
        if len(self.opened) > _MAX_FILES:
            raise ConfigError(f"{self.label}: more than {_MAX_FILES} files are chained by {BASE_KEY}")
        if self.path.suffix != ".py":
            raise ConfigError(f"{self.label}: a config file's name must end in .py")
        try:
            source = self.path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self.label}: cannot be read: {error.strerror}") from error
        if len(source) > _MAX_BYTES:
            raise ConfigError(f"{self.label}: larger than {_MAX_BYTES:,} bytes, this is no config file")
        try:
            return ast.parse(source, filename=self.label)
        except SyntaxError as error:
            raise ConfigError(f"{self.label}:{error.lineno or 1}: not valid Python: {error.msg}") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise ConfigError(f"{self.label}: not valid Python: {error or 'too deeply nested'}") from error

    def _statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):
                pass  # a docstring, or a comment written as one
            case ast.Expr(value=expr):
                raise self.expressions.refusal(expr)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._assign(statement, name, self.expressions.evaluate(value))
            case _:
                raise self.expressions.refusal(statement)

    def _assign(self, statement: ast.stmt, name: str, value: Node) -> None:
        if name == BASE_KEY:
            self.base = self._read_bases(statement, plain(value))
            self.expressions.base_names = frozenset(entries(self.base))
        elif name == "dict":
            raise self.expressions.error(statement, "no value may be named dict")
        else:
            self.names[name] = value

    def _read_bases(self, statement: ast.stmt, listed: Any) -> Node:
        files = [listed] if isinstance(listed, str) else listed
        if not isinstance(files, list | tuple) or not all(isinstance(file, str) for file in files):
            raise self.expressions.error(statement, f"{BASE_KEY} must be a file name, or a list of file names")
        merged: dict[Key, Node] = {}
        for file in files:
            base = entries(self._read_base(statement, file))
            if twice := sorted(str(name) for name in merged.keys() & base.keys()):
                places = f"{merged[twice[0]].origin} and {base[twice[0]].origin}"
                raise self.expressions.error(statement, f"two {BASE_KEY} files set '{twice[0]}': {places}")
            merged |= base
        return Node(merged, self.expressions.where(statement))

    def _read_base(self, statement: ast.stmt, file: str) -> Node:
        path = (self.path.parent / file).resolve()
        if not path.is_file():
            shipped = shipped_configs().get(file.removesuffix(".py"))
            if shipped is None:
                hint = "give a path relative to this file, or the name of a shipped config"
                raise self.expressions.error(statement, f"the {BASE_KEY} file {file} does not exist; {hint}")
            path = shipped.resolve()
        if path in self.chain:
            raise self.expressions.error(statement, f"the {BASE_KEY} files go in a circle through {file}")
        return _File(path, chain=self.chain, opened=self.opened).read()


def _shown(path: Path) -> str:
    """A path as messages give it: relative to the working directory where it lies below that."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
