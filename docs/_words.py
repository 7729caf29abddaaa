"""Which keys of a config file set which settings, found by trying.

Every key of the dialect (`iwin.config.dialect`) gets other values, and what changes in the run is what the key sets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from iwin.config.dialect.run import Run
from iwin.config.dialect.words import NoEffect, Reading, Words, without_lists

Place = tuple[str | int, ...]

BASE: dict[str, Any] = {
    "model": {"type": "Recognizer3D", "backbone": {"type": "IwinTransformer3D"}, "cls_head": {"type": "I3DHead"}},
    "data": {"train": {"type": "VideoDataset", "pipeline": [{"type": "SampleFrames", "clip_len": 8}]}},
}
"""The smallest config that has everything; in it a key that is left out has its default."""

NEEDED: dict[str, dict[str, Any]] = {
    "Adam": {"lr": 0.1},
    "AdamW": {"lr": 0.1},
    "Collect": {"keys": ["imgs"]},
    "CosineAnnealing": {"min_lr": 0.0},
    "CutmixBlending": {"num_classes": 400},
    "EpochBasedRunner": {"max_epochs": 30},
    "FormatShape": {"input_format": "NCTHW"},
    "GradClip": {"max_norm": 0.1},
    "Imgaug": {"transforms": [{"type": "RandAugment"}]},
    "LabelSmoothing": {"num_classes": 400},
    "MixupBlending": {"num_classes": 400},
    "MultiScaleCrop": {"input_size": 64},
    "Normalize": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
    "RandomCrop": {"size": 64},
    "RawframeDataset": {"pipeline": [{"type": "SampleFrames", "clip_len": 8}]},
    "Resize": {"scale": (256, 256)},
    "SGD": {"lr": 0.1},
    "SampleFrames": {"clip_len": 8},
    "TenCrop": {"crop_size": 64},
    "ThreeCrop": {"crop_size": 64},
    "ToTensor": {"keys": ["imgs"]},
    "UniformSampleFrames": {"clip_len": 8},
    "step": {"step": [5]},
}
"""Keys that must be given, by `type` (or `policy`, or the name of the class of words)."""

COMPANIONS: dict[str | int, tuple[dict[str, Any], ...]] = {
    "min_lr_ratio": ({"min_lr": None},),
    "scale": ({}, {"keep_ratio": False}),
    "warmup": ({"warmup_iters": 5},),
}
"""What other keys of the same dict are while a key is tried, where it needs others or means more with them."""

CANDIDATES: tuple[Any, ...] = (
    *(True, False, 3, 192, 0.25, 2.5, "x"),
    *((3, 3), (-1, 3), (3, 3, 3), (3, 3, 3, 3), (0.25, 0.5), (0.25, 0.5, 0.75), {3: 4}),
)
"""Values that are tried for every key, beside those that its type spells out."""

ONLY_CHECKED = "checked, and not needed beyond that"

MUST_BE_GIVEN = "must be given"


@dataclass(frozen=True)
class Word:
    """A key of a config file.

    Attributes:
        key: its path; "<step>.<key>" for a key of a pipeline step.
        tag: the `type` (or `policy`) of the dict that it stands in, where that has several.
        defaults: what the settings that it sets are where it is left out, by the settings' paths.
        fate: what there is to say about a key that sets nothing.
    """

    key: str
    tag: str
    defaults: dict[str, str] = field(default_factory=dict)
    fate: str = ""


@dataclass
class Findings:
    """All keys, by what they do.

    Attributes:
        effective: keys that set something.
        inert: keys that are read and change nothing, with the reason.
        fixed: keys for which a single value is accepted, with that value.
        refused: keys that are errors, with the message.
        tags: the types that the dict at a key can have, where it can have several.
    """

    effective: list[Word] = field(default_factory=list)
    inert: list[Word] = field(default_factory=list)
    fixed: list[Word] = field(default_factory=list)
    refused: list[Word] = field(default_factory=list)
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, setting: str) -> list[Word]:
        """The keys that set a setting."""
        return [word for word in self.effective if setting in word.defaults]


def find_words() -> Findings:
    """Try all keys."""
    findings = Findings()
    _walk(findings, Run, BASE, place=(), label="", tag="")
    return findings


def members(annotation: Any) -> list[type[Words]]:
    """The classes of words that a type speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, Words):
        return [annotation]
    return [words for inner in get_args(annotation) for words in members(inner)]


def tags_of(words: type[Words]) -> list[str]:
    """The names that the `type` (or `policy`) of a class of words can have, without those differing by a capital."""
    names = [str(choice) for key in ("type", "policy") if key in words.model_fields for choice in _choices(words, key)]
    return list({name.lower(): name for name in reversed(names)}.values())[::-1]


def _needed_tags(words: type[Words]) -> list[str]:
    """Those names where one must be given; a `policy` with a default is a key like any other."""
    required = any(key in words.model_fields and words.model_fields[key].is_required() for key in ("type", "policy"))
    return tags_of(words) if required else []


def smallest(words: type[Words], tag: str) -> dict[str, Any]:
    """The smallest dict of a class of words."""
    key = "policy" if "policy" in words.model_fields else "type"
    return {**({key: tag} if tag else {}), **NEEDED.get(tag or words.__name__, {})}


# ------------------------------------------------------------------------------------------------ the walk


def _walk(findings: Findings, words: type[Words], data: dict[str, Any], *, place: Place, label: str, tag: str) -> None:
    """Try the keys of the dict at a place of a config."""
    for name, info in words.model_fields.items():
        key = f"{label}.{name}".removeprefix(".")
        if label == "data":
            if name.startswith(("val", "test")):
                continue  # they are as those of the training split
            key = key.replace("data.train", "data.<split>")
        reasons = [mark.reason for mark in info.metadata if isinstance(mark, NoEffect)]
        if reasons:
            findings.inert.append(Word(key, tag, fate=reasons[0]))
        elif inside := members(info.annotation):
            _walk_inside(findings, inside, data, place=(*place, name), key=key)
        elif not (tag and name in ("type", "policy")):
            _try(findings, Word(key, tag), info, data, place=(*place, name))


def _walk_inside(
    findings: Findings, inside: Sequence[type[Words]], data: dict[str, Any], *, place: Place, key: str
) -> None:
    """Try the keys of the dict that stands at a key, for every type that it can have."""
    is_step, is_choice = place[-1] == "pipeline", len(inside) > 1
    if is_choice and not is_step:
        variants = [(words, tag) for words in inside for tag in tags_of(words)]
        findings.tags[key] = tuple(tag for _, tag in variants)
    else:
        variants = [(words, (_needed_tags(words) or [""])[0]) for words in inside]
    before = _meaning(data)
    first, settings = len(findings.effective), set()
    for words, tag in variants:
        where = _inner_place(place, tag)
        known = _get(data, where) or {}
        kept = known if is_choice <= (known.get("type") == tag) else {}
        changed = _put(data, where, {**smallest(words, tag), **kept})
        if tag == "DistOptimizerHook":  # it splits the batch, so there must be something to split
            changed = _put(changed, ("data", "videos_per_gpu"), 192)
        else:
            settings |= set(_difference(before, _meaning(changed)))
        label = tag if is_step else key
        _walk(findings, words, changed, place=where, label=label, tag=tag if is_choice else "")
    covered = {name for word in findings.effective[first:] for name in word.defaults}
    if settings - covered:
        chooser = {"lr_config": ".policy"}.get(key, ".type") if is_choice else ""
        defaults = {name: repr(before.get(name)) for name in settings - covered}
        findings.effective.append(Word(key + chooser, "", defaults))


def _inner_place(place: Place, tag: str) -> Place:
    """Where the dict itself stands: some keys hold lists or named dicts of them."""
    match place[-1]:
        case "pipeline":
            return (*place, 0 if "Sample" in tag else 1)
        case "hooks" | "transforms":
            return (*place, 0)
        case "custom_keys":
            return (*place, "norm")
    return place


def _try(findings: Findings, word: Word, info: FieldInfo, data: dict[str, Any], *, place: Place) -> None:
    """Find out what a key does by giving it other values."""
    usual = _meaning(BASE)
    choices = _spelled_out(info.annotation)
    message = ""
    for companions in COMPANIONS.get(place[-1], ({},)):
        with_them = data
        for name, value in companions.items():
            with_them = _put(with_them, (*place[:-1], name), value)
        before = _meaning(with_them if _is_valid(with_them) else data)
        for value in [*CANDIDATES, *choices, *((choice,) for choice in choices)]:
            try:
                after = _meaning(_put(with_them, place, value))
            except ValidationError as error:
                message = message or str(error.errors()[0]["msg"]).removeprefix("Value error, ")
                continue
            for setting in _difference(before, after):
                if not info.is_required():
                    word.defaults.setdefault(setting, repr(before.get(setting)))
                elif setting in usual and usual[setting] in (None, ()):
                    word.defaults[setting] = repr(usual[setting])
                else:
                    word.defaults[setting] = MUST_BE_GIVEN
    if word.defaults:
        findings.effective.append(word)
    elif info.annotation is Any:
        findings.refused.append(Word(word.key, word.tag, fate=message))
    elif len(choices) == 1:
        findings.fixed.append(Word(word.key, word.tag, fate=repr(choices[0])))
    else:
        findings.inert.append(Word(word.key, word.tag, fate=ONLY_CHECKED))


# ------------------------------------------------------------------------------------------------ small tools


def _choices(words: type[Words], name: str) -> list[Any]:
    return _spelled_out(words.model_fields[name].annotation)


def _spelled_out(annotation: Any) -> list[Any]:
    """The values that a type spells out."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for inner in get_args(annotation) for choice in _spelled_out(inner)]


def _get(data: Any, place: Place) -> Any:
    """The value at a place of nested dicts and lists, None where there is none."""
    for part in place:
        if isinstance(part, int):
            data = data[part] if data and part < len(data) else None
        else:
            data = data.get(part) if data else None
    return data


def _put(data: Any, place: Place, value: Any) -> Any:
    """A copy of nested dicts and lists with the value at a place replaced."""
    if not place:
        return value
    first, rest = place[0], place[1:]
    if isinstance(first, int):
        items = list(data or [])
        return [*items[:first], _put(_get(data, (first,)), rest, value), *items[first + 1 :]]
    own = data or {}
    return {**own, first: _put(own.get(first), rest, value)}


def _is_valid(data: dict[str, Any]) -> bool:
    try:
        _meaning(data)
    except ValidationError:
        return False
    return True


def _meaning(data: dict[str, Any]) -> dict[str, Any]:
    """The settings of a config, by path; the training split stands for all."""
    run = Run.model_validate(without_lists(data), context=Reading()).settings()
    flat = dict(_flattened(run.model_dump(), ""))
    return {path.replace("data.train.", "data.<split>."): value for path, value in flat.items()}


def _flattened(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flattened(inner, f"{path}.{name}".removeprefix("."))
    elif isinstance(value, tuple) and value and isinstance(value[0], dict):
        for inner in value:
            yield from _flattened(inner, f"{path}.{inner['kind']}" if "kind" in inner else path)
    elif not path.endswith(".kind"):
        yield path, value


def _difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]
