"""What all upstream words share: how they are checked, and how what is wrong with them is told.

A class of words describes one `dict(...)` of an upstream config: its fields are the keys, with upstream's names and
defaults. Unknown keys and wrong types are errors; types are strict, so that `"8"` or `8.0` is no count. Lists arrive
as tuples. A field marked `NoEffect` is understood but changes nothing here.
"""

import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails

from iwin.config.tree import Key
from iwin.errors import did_you_mean

KeyPath = tuple[Key, ...]


@dataclass(frozen=True)
class NoEffect:
    """Marks a field, as in `Annotated[bool, NoEffect("why")]`, whose value changes nothing here."""

    reason: str


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a config.

    Attributes:
        path: the key it is about.
        message: what is wrong.
    """

    path: KeyPath
    message: str


@dataclass
class Reading:
    """What is gathered while a config is validated; every validator gets it as pydantic's context.

    Attributes:
        classes: the words that each dict was taken for, by the dict's identity.
        notes: what is to be said about values that were understood.
    """

    classes: dict[int, type[BaseModel]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @staticmethod
    def of(info: ValidationInfo) -> "Reading":
        """The reading that a validator takes part in."""
        assert isinstance(info.context, Reading)
        return info.context


class Words(BaseModel):
    """Base of every group of upstream words."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _remember(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(info.context, Reading):
            info.context.classes[id(data)] = cls
        return data


def without_lists(data: Any) -> Any:
    """A copy of config data with every list as a tuple: upstream uses them as if they were the same."""
    match data:
        case dict():
            return {key: without_lists(value) for key, value in data.items()}
        case list() | tuple():
            return tuple(without_lists(value) for value in data)
    return data


def inert_settings(words: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Key and reason of every setting that was given but has no effect here."""
    match words:
        case Words():
            for name, info in type(words).model_fields.items():
                if name in words.model_fields_set:
                    yield from (((*path, name), mark.reason) for mark in info.metadata if isinstance(mark, NoEffect))
                    yield from inert_settings(getattr(words, name), (*path, name))
        case dict():
            for name, value in words.items():
                yield from inert_settings(value, (*path, name))
        case tuple():
            for place, value in enumerate(words):
                yield from inert_settings(value, (*path, place))


def problems_of(error: ValidationError, data: Any, reading: Reading) -> list[Problem]:
    """Everything that pydantic found wrong with `data`, in a config's own terms."""
    return [_problem(details, data, reading) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, data: Any, reading: Reading) -> Problem:
    path, parent = _place(details["loc"], data)
    context = details.get("ctx", {})
    match details["type"]:
        case "missing":
            return Problem((*path, details["loc"][-1]), "is missing")
        case "extra_forbidden":
            known = sorted(reading.classes[id(parent)].model_fields)
            return Problem(path, f"unknown key{_known(path[-1], known)}")
        case "union_tag_invalid":
            tags = re.findall("'([^']+)'", context["expected_tags"])
            hint = _known(context["tag"], tags, cutoff=0.8)
            return Problem((*path, _unquoted(context)), f"unknown value '{context['tag']}'{hint}")
        case "union_tag_not_found":
            return Problem((*path, _unquoted(context)), "is missing")
        case "value_error":
            return Problem(path, str(context["error"]))
    return Problem(path, f"{_in_words(details)}, not {reprlib.repr(details['input'])}")


def _place(loc: tuple[int | str, ...], data: Any) -> tuple[KeyPath, Any]:
    """The key path of pydantic's location, and the dict or tuple that its last key stands in.

    A location also names the tags of unions (`("lr_config", "step", "gamma")` for a policy "step") and the like, which
    are no keys.
    """
    path: KeyPath = ()
    parent, tag = data, None
    for part in loc:
        if part == tag:
            tag = None
        elif (part in data) if isinstance(data, dict) else (isinstance(data, tuple) and isinstance(part, int)):
            path, parent, data = (*path, part), data, data[part]
            tag = data.get("type", data.get("policy")) if isinstance(data, dict) else None
    return path, parent


def _known(word: object, known: list[str], *, cutoff: float = 0.6) -> str:
    return did_you_mean(word, known, cutoff=cutoff) or f" (known here: {', '.join(known)})"


def _unquoted(context: dict[str, Any]) -> str:
    return str(context["discriminator"]).strip("'")


_TYPES = {
    "bool_type": "True or False",
    "dict_type": "a dict",
    "float_type": "a number",
    "int_type": "a whole number",
    "model_attributes_type": "a dict",
    "model_type": "a dict",
    "string_type": "text",
    "tuple_type": "a list or tuple",
}


def _in_words(details: ErrorDetails) -> str:
    if right := _TYPES.get(details["type"]):
        return f"should be {right}"
    if details["type"] in ("too_long", "too_short"):
        return "has the wrong number of values"
    return details["msg"].replace("Input should be", "should be")
