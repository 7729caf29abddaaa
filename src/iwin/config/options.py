"""`--cfg-options key.path=value ...`, in the grammar of mmcv 1.3's DictAction.

A value is an int, a float, true or false, None or text; `a,b` and `[a,b]` are lists, `(a,b)` is a tuple, and brackets
nest. Quotes around a value are dropped. A number in the key path counts in a list: `data.train.pipeline.1.clip_len=8`.
"""

import keyword
import re
from collections.abc import Sequence

from iwin.config.tree import DELETE_KEY, Key, Node, Scalar, children
from iwin.errors import ConfigError

_INT = re.compile(r"[+-]?\d{1,80}")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS: dict[str, Scalar] = {"true": True, "false": False}
_BRACKETS = {"(": ")", "[": "]"}
_RESERVED = {"_base_", DELETE_KEY, "dict"}
_MAX_NESTING = 20


def apply_option(tree: Node, option: str) -> Node:
    """A config's tree with one `key.path=value` applied.

    Raises:
        ConfigError: the option is not of that form, or its path leads through something that is no section or list.
    """
    origin = f"option '{option}'"
    key_text, equals, value_text = option.partition("=")
    keys = key_text.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{origin}: options have the form key.path=value, as in model.backbone.use_checkpoint=True")
    top = keys[0]
    is_name = top.isidentifier() and not keyword.iskeyword(top) and not top.startswith("__")
    if not is_name or _RESERVED.intersection(keys) or len(keys) > _MAX_NESTING:
        raise ConfigError(f"{origin}: '{key_text}' cannot be set by an option")
    if re.search(r"[\ud800-\udfff]", option):  # which no checkpoint could hold
        raise ConfigError(f"{origin}: a config cannot hold a name that is no UTF-8; rename the file or folder")
    return _set(tree, keys, _parse(value_text, origin), origin)


def _set(node: Node, keys: Sequence[str], value: Node, origin: str) -> Node:
    """`node` with the value at the key path replaced; sections that are missing or None are made."""
    if not keys:
        return value
    name, rest = keys[0], keys[1:]
    match node.value:
        case dict() | None:
            section: dict[Key, Node] = node.value or {}
            # Files may key a dict by whole numbers (Flip's flip_label_map); text finds those too.
            key: Key = int(name) if _INT.fullmatch(name) and int(name) in section else name
            child = _set(section.get(key, Node(None, origin)), rest, value, origin)
            return Node({**section, key: child}, node.origin)
        case list() | tuple():
            items = children(node)
            if not name.isdecimal() or int(name) >= len(items):
                raise ConfigError(f"{origin}: '{name}' is not one of the {len(items)} places 0 .. {len(items) - 1}")
            items[int(name)] = _set(items[int(name)], rest, value, origin)
            return Node(items if isinstance(node.value, list) else tuple(items), node.origin)
    raise ConfigError(f"{origin}: there is no '{name}' inside {node.value!r} (set at {node.origin})")


def _parse(text: str, origin: str, nesting: int = 0) -> Node:
    text = text.strip().strip("'\"").strip()
    if nesting > _MAX_NESTING:
        raise ConfigError(f"{origin}: the brackets are nested too deeply")
    if "," not in text and text[:1] not in _BRACKETS:
        return Node(_scalar(text), origin)
    parts, is_tuple = _split(text, origin), False
    if len(parts) == 1 and text[0] in _BRACKETS:
        is_tuple = text[0] == "("
        parts = _split(text[1:-1], origin)
    items = [_parse(part, origin, nesting + 1) for part in parts if part.strip()]
    return Node(tuple(items) if is_tuple else items, origin)


def _split(text: str, origin: str) -> list[str]:
    """The parts between the commas that are outside all brackets."""
    parts, closing, start = [], [], 0
    for place, char in enumerate(text):
        if char in _BRACKETS:
            closing.append(_BRACKETS[char])
        elif char in _BRACKETS.values() and (not closing or closing.pop() != char):
            raise ConfigError(f"{origin}: the brackets do not match")
        elif char == "," and not closing:
            parts.append(text[start:place])
            start = place + 1
    if closing:
        raise ConfigError(f"{origin}: the brackets do not match")
    return [*parts, text[start:]]


def _scalar(text: str) -> Scalar:
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text == "None":
        return None
    return _WORDS.get(text.lower(), text)
