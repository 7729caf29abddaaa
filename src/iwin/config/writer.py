"""The other direction: a config as the text of a file that `reader` reads back to the same values."""

import keyword
from typing import Any

_WIDTH = 100
_INDENT = "    "


def dump_config(data: dict[str, Any]) -> str:
    """A resolved config as the text of a config file without bases; `read_config` of it gives `data` again."""
    return "".join(_entry(f"{name} = ", value, "\n", indent="") for name, value in data.items())


def _entry(label: str, value: Any, end: str, *, indent: str) -> str:
    """A labelled value as Python text, on one line where that is short enough, else one entry a line."""
    line = f"{indent}{label}{_line(value)}{end}"
    if len(line.rstrip()) <= _WIDTH or not isinstance(value, dict | list | tuple):
        return line
    opening, labelled, closing = _parts(value)
    lines = [_entry(inner, item, ",\n", indent=indent + _INDENT) for inner, item in labelled]
    return f"{indent}{label}{opening}\n{''.join(lines)}{indent}{closing}{end}"


def _line(value: Any) -> str:
    """A value as Python text on one line."""
    if not isinstance(value, dict | list | tuple):
        return repr(value)
    opening, labelled, closing = _parts(value)
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    return opening + ", ".join(label + _line(item) for label, item in labelled) + comma + closing


def _parts(value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> tuple[str, list[tuple[str, Any]], str]:
    """The opening of a container, its entries with what is written before each, its closing."""
    match value:
        case dict() if all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value):
            return "dict(", [(f"{key}=", item) for key, item in value.items()], ")"
        case dict():
            return "{", [(f"{key!r}: ", item) for key, item in value.items()], "}"
        case list():
            return "[", [("", item) for item in value], "]"
    return "(", [("", item) for item in value], ")"
