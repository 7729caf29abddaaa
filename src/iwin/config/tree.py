"""A config's values, each with the place it came from.

A `Node` is one value (a scalar, or a dict, list or tuple of Nodes) and its origin: `file:line` or `option 'a.b=c'`.
Nodes are never changed in place. Their size and depth are bounded as they are made, so that a few hostile lines
(`b = [a, a]`, `c = [b, b]`, and so on) cannot fill the memory.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from iwin.errors import ConfigError

Scalar = str | int | float | bool | None
Key = str | int
Value = Scalar | dict[Key, "Node"] | list["Node"] | tuple["Node", ...]

DELETE_KEY = "_delete_"
"""`_delete_=True` in a child's dict makes it replace the base's dict instead of merging into it."""

MAX_WEIGHT = 200_000  # values in one config, a long string counting as several; real ones have a few hundred
MAX_DEPTH = 50
MAX_BITS = 256


@dataclass(frozen=True, slots=True)
class Node:
    """One value and where it came from."""

    value: Value
    origin: str
    weight: int = field(init=False)
    depth: int = field(init=False)

    def __post_init__(self) -> None:
        nodes = children(self)
        own = len(self.value) // 16 if isinstance(self.value, str) else 0
        object.__setattr__(self, "weight", 1 + own + sum(node.weight for node in nodes))
        object.__setattr__(self, "depth", 1 + max((node.depth for node in nodes), default=0))
        if self.weight > MAX_WEIGHT or self.depth > MAX_DEPTH:
            raise ConfigError(f"{self.origin}: the value is too large or too deeply nested for a config")
        if isinstance(self.value, float) and not math.isfinite(self.value):
            raise ConfigError(f"{self.origin}: {self.value} is not a finite number")
        if isinstance(self.value, int) and self.value.bit_length() > MAX_BITS:
            raise ConfigError(f"{self.origin}: the number is too large for a config")


def children(node: Node) -> list[Node]:
    """The Nodes directly inside a dict, list or tuple; none inside a scalar."""
    match node.value:
        case dict():
            return list(node.value.values())
        case list() | tuple():
            return list(node.value)
    return []


def entries(node: Node) -> dict[Key, Node]:
    """The entries of a Node that is known to be a dict."""
    assert isinstance(node.value, dict)
    return node.value


def plain(node: Node) -> Any:
    """The value without origins, every `_delete_` mark dropped."""
    match node.value:
        case dict():
            return {key: plain(child) for key, child in node.value.items() if key != DELETE_KEY}
        case list():
            return [plain(child) for child in node.value]
        case tuple():
            return tuple(plain(child) for child in node.value)
    return node.value


def origin_of(node: Node, path: Iterable[Key]) -> str:
    """Where the value at `path` came from; the nearest enclosing value's origin if there is none at `path`."""
    for key in path:
        match node.value:
            case dict() if key in node.value:
                node = node.value[key]
            case list() | tuple() if isinstance(key, int) and key < len(node.value):
                node = node.value[key]
            case _:
                break
    return node.origin


def merge(base: Node, child: Node) -> Node:
    """The dict `child` on top of the dict `base`, by mmcv's rule.

    Dicts merge key by key, unless the child's says `_delete_=True`; anything else, lists too, replaces what was there.
    A dict may also take the place of None, at which mmcv fails.
    """
    merged = dict(entries(base))
    for key, new in entries(child).items():
        old = merged.get(key)
        if old is None or old.value is None or not isinstance(new.value, dict) or _deletes(new):
            merged[key] = new
        elif isinstance(old.value, dict):
            merged[key] = merge(old, new)
        else:
            raise ConfigError(
                f"{new.origin}: '{key}' is a dict here but {plain(old)!r} in {old.origin}; "
                f"add {DELETE_KEY}=True to replace it"
            )
    return Node(merged, child.origin)


def _deletes(node: Node) -> bool:
    mark = entries(node).get(DELETE_KEY)
    return mark is not None and bool(mark.value)
