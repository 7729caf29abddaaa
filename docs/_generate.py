"""Write docs/config_reference.md from the code: `python -m docs._generate` in the repository root.

Settings, types and meanings are those of `iwin.config.schema`; the keys of a config file are found by `docs._words`.
"""

import ast
import types
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from docs._words import MUST_BE_GIVEN, Findings, Word, find_words, members, smallest, tags_of
from pydantic.fields import FieldInfo

import iwin
from iwin.config import schema
from iwin.config.dialect.data import Dataset
from iwin.config.dialect.steps import Step
from iwin.config.dialect.words import Reading, without_lists

PAGE = Path(__file__).with_name("config_reference.md")

HEAD = """\
# Config reference

<!-- Written by `python -m docs._generate` from the code: change it there. -->

Every setting of a run, and the keys of a config file that set it. [Configs](configs.md) tells how such files are
written.

- **Setting** is the name in `iwin.config.RunConfig`, which is also what a checkpoint carries.
- **In a config file** is the key, as in `--cfg-options key=value`. A name in brackets is the `type` (or `policy`) of
  the dict that has the key. `<split>` is `train`, `val` or `test`. A key such as `Resize.scale` belongs to a step of
  `data.<split>.pipeline`, here `dict(type="Resize", scale=(-1, 256))`.
- The **default** is what holds when a config file leaves the key out; "in Python" follows where a `RunConfig` made in
  Python starts from another value.
"""

LEGEND = "- What is marked **not supported yet** is read and checked, but no run uses it.\n"

TABLE = "| Setting | In a config file | Type, default | Meaning |\n| --- | --- | --- | --- |"

SPLIT = "data.<split>"

SECTIONS: tuple[tuple[str, str, type[schema.Settings]], ...] = (
    ("The run", "", schema.RunConfig),
    ("Model", "model", schema.ModelSettings),
    ("Backbone", "model.backbone", schema.BackboneSettings),
    ("Data", SPLIT, schema.SplitSettings),
    ("Bad videos", "data.bad_videos", schema.BadVideoSettings),
    ("Frame sampling", f"{SPLIT}.sampling", schema.SamplingSettings),
    ("Normalisation", f"{SPLIT}.normalize", schema.NormalizeSettings),
    ("Optimiser", "optim", schema.OptimSettings),
    ("Parameter groups", "optim.rules", schema.ParamGroupRule),
    ("Learning rate", "schedule", schema.ScheduleSettings),
    ("Evaluation", "evaluation", schema.EvaluationSettings),
    ("Test", "test", schema.TestSettings),
    ("Blending", "blending", schema.BlendingSettings),
)

PLAIN = {
    "epochs": "Length of the run.",
    "seed": "Seed of weights, order and augmentation.",
    "deterministic": "Use only operations that give the same result bit for bit on every run.",
    "find_unused_parameters": "Let distributed training accept parameters that get no gradient.",
    "normalize.mean": "Subtracted from red, green and blue.",
    "normalize.std": "Red, green and blue are divided by it.",
    "optim.name": "The optimiser.",
    "optim.lr": "Learning rate, before the multipliers of `rules`.",
    "optim.betas": "Adam: decay rates of the two running means.",
    "optim.eps": "Adam: added to the denominator.",
    "optim.momentum": "SGD: momentum.",
    "optim.nesterov": "SGD: Nesterov's momentum.",
    "optim.weight_decay": "Weight decay, before the multipliers of `rules`.",
    "optim.norm_decay_mult": "Weight decay multiplier of normalisation layers that no rule names.",
    "optim.bias_lr_mult": "Learning rate multiplier of biases that no rule names.",
    "optim.bias_decay_mult": "Weight decay multiplier of biases that no rule names.",
    "rules.key": "Part of a parameter's name.",
    "rules.lr_mult": "Multiplier of the learning rate.",
    "rules.decay_mult": "Multiplier of the weight decay.",
    "schedule.policy": "How the rate moves after the warm-up.",
    "schedule.gamma": "Step: the factor.",
    "schedule.warmup": "How the rate rises at the start; None starts with the policy's rate.",
    "schedule.warmup_by_epoch": "Whether `warmup_length` counts epochs.",
    "evaluation.metrics": "The figures that are reported.",
    "evaluation.topk": "The k of top-k accuracy.",
    "random_resized_crop.area_range": "Lowest and highest share of the frame's area.",
    "random_resized_crop.aspect_ratio_range": "Lowest and highest width by height.",
    "random_crop.size": "Side in pixels.",
    "center_crop.size": "(height, width) in pixels.",
    "three_crop.size": "(height, width) in pixels; one of them must be the frame's.",
    "ten_crop.size": "(height, width) in pixels.",
    "multi_scale_crop.scales": "Factors of the short side.",
    "flip.probability": "How often a clip is mirrored.",
    "flip.direction": "Left with right, or top with bottom.",
    "color_jitter.brightness": "The factor is drawn from 1 - it to 1 + it.",
    "color_jitter.contrast": "Likewise.",
    "color_jitter.saturation": "Likewise.",
    "color_jitter.hue": "The shift is drawn from - it to + it, 1 being the whole circle.",
    "rand_augment.num_ops": "Operations for each clip.",
    "random_erasing.probability": "How often boxes are filled.",
    "random_erasing.aspect_ratio_range": "Lowest and highest width by height.",
}
"""Meanings of settings that the schema leaves to their names, by the last two parts of their path."""


def page() -> str:
    """The text of config_reference.md."""
    words, missing = find_words(), not_supported()
    parts = [HEAD + LEGEND if missing else HEAD]
    parts += [_section(f"## {title}", path, settings, words, missing) for title, path, settings in SECTIONS]
    parts.append("## Transforms\n\nWhat the steps of a pipeline can do to the frames, in the order of the steps.\n")
    for transform in transforms():
        kind = kind_of(transform)
        parts.append(_section(f"### {kind}", f"{SPLIT}.transforms.{kind}", transform, words, missing))
    parts += [
        _steps(),
        _keys("Keys without effect", "Accepted, so that published configs need no change.", "Why", words.inert),
        _keys("Keys with one value", "Any other value is an error.", "Value", words.fixed),
        _keys("Refused keys", "Errors, unless they are empty.", "Message", words.refused),
    ]
    return "\n".join(parts)


def transforms() -> list[type[schema.Settings]]:
    """The settings of every transform."""
    return list(_groups(schema.SplitSettings.model_fields["transforms"].annotation))


def kind_of(transform: type[schema.Settings]) -> str:
    """The name of a transform."""
    return str(transform.model_fields["kind"].default)


def rows(path: str, settings: type[schema.Settings]) -> Iterator[tuple[str, FieldInfo]]:
    """Path and field of the settings that a group has itself."""
    for name, info in settings.model_fields.items():
        if name != "kind" and not any(_groups(info.annotation)):
            yield f"{path}.{name}".removeprefix("."), info


def meaning(path: str, info: FieldInfo) -> str:
    """What a setting means, in a sentence."""
    return " ".join((info.description or PLAIN[".".join(path.split(".")[-2:])]).split())


def _groups(annotation: Any) -> Iterator[type[schema.Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, schema.Settings):
        yield annotation
    for inner in get_args(annotation):
        yield from _groups(inner)


# ------------------------------------------------------------------------------------------------ what is missing


NOT_YET = "**Not supported yet.**"

READ_BY_NAME = (
    schema.RunConfig,
    schema.ModelSettings,
    schema.SplitSettings,
    schema.BadVideoSettings,
    schema.OptimSettings,
    schema.EvaluationSettings,
    schema.TestSettings,
)
"""Groups whose settings `build` and `cli` read one by one; the others they pass on as they are."""


def not_supported() -> dict[str, str]:
    """Remarks on the settings that no run uses, since nothing reads them."""
    return dict.fromkeys(_unread(), NOT_YET)


def _above_config() -> list[Path]:
    """The files that make a run of settings."""
    package = Path(iwin.__file__).parent
    return [package / "predict.py", *sorted((package / "build").glob("*.py")), *sorted((package / "cli").glob("*.py"))]


def _unread() -> Iterator[str]:
    """Paths of settings whose name is read nowhere above the config room."""
    read = {
        node.attr
        for path in _above_config()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    for _, group, settings in SECTIONS:
        if settings in READ_BY_NAME:
            yield from (path for path, _ in rows(group, settings) if path.split(".")[-1] not in read)


# ------------------------------------------------------------------------------------------------ sections


def _section(title: str, path: str, settings: type[schema.Settings], words: Findings, missing: dict[str, str]) -> str:
    about = " ".join((settings.__doc__ or "").split())
    place = f" Settings below `{path}`." if path else ""
    mark = [missing[path], ""] if path in missing else []
    lines = [_row(setting, info, words, missing) for setting, info in rows(path, settings)]
    return "\n".join([title, "", about + place, "", *mark, TABLE, *lines]) + "\n"


def _row(path: str, info: FieldInfo, words: Findings, missing: dict[str, str]) -> str:
    found = words.of(path)
    about = f"{meaning(path, info).replace('<', '&lt;')} {missing.get(path, '')}".strip()
    name = f"`{path.split('.')[-1]}`"
    value = f"{_shown_type(info.annotation, info.metadata)}<br>{_defaults(info, found, path)}"
    return f"| {name} | {_shown_keys(found, words)} | {value} | {about} |"


def _shown_keys(found: list[Word], words: Findings) -> str:
    tags: dict[str, list[str]] = {}
    for word in found:
        tags.setdefault(word.key, []).append(word.tag)
    shown: list[str] = []
    for key, own in tags.items():
        everyone = words.tags.get(key.rpartition(".")[0], ())
        shown.append(f"`{key}`" + (f" ({', '.join(own)})" if any(own) and len(own) < len(everyone) else ""))
    return "<br>".join(shown)


def _defaults(info: FieldInfo, found: list[Word], path: str) -> str:
    count = Counter(word.defaults[path] for word in found)
    if path.startswith(f"{SPLIT}.transforms") and MUST_BE_GIVEN in count:
        return MUST_BE_GIVEN
    if len(count) > 1:
        del count[MUST_BE_GIVEN]
    shown: list[str] = []
    for value, _ in count.most_common():
        tags = [word.tag for word in found if word.defaults[path] == value and word.tag]
        text = value if value == MUST_BE_GIVEN else f"default `{value}`"
        shown.append(f"{text} ({', '.join(tags)})" if shown and tags else text)
    own = None if info.is_required() else repr(info.default)
    if own is not None and own not in count:
        shown.append(f"in Python `{own}`")
    return "<br>".join(shown)


def _shown_type(annotation: Any, metadata: list[Any]) -> str:
    """A type in a few words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _shown_type(inner[0], [*inner[1:], *metadata])
    if origin in (Union, types.UnionType):
        kinds = [_shown_type(kind, metadata) for kind in inner if kind is not type(None)]
        return " or ".join([*kinds, "None"] if len(kinds) < len(inner) else kinds)
    if origin is Literal:
        return ", ".join(f"`{choice!r}`" for choice in inner)
    if origin is tuple:
        kinds = [_shown_type(kind, []) for kind in inner if kind is not Ellipsis]
        if Ellipsis in inner:
            return f"list of {kinds[0]}"
        return f"{len(kinds)} x {kinds[0]}" if len(set(kinds)) == 1 else f"({', '.join(kinds)})"
    return {int: "int", float: "float", bool: "bool", str: "text"}[annotation] + _bounds(metadata)


def _bounds(metadata: list[Any]) -> str:
    marks = [inner for mark in metadata for inner in (mark, *getattr(mark, "metadata", ()))]
    bounds = {name: getattr(mark, name) for mark in marks for name in ("gt", "ge", "le") if hasattr(mark, name)}
    if "ge" in bounds and "le" in bounds:
        return f" {bounds['ge']:g} .. {bounds['le']:g}"
    signs = {"gt": "&gt;", "ge": "&ge;", "le": "&le;"}
    return "".join(f" {signs[name]} {bound:g}" for name, bound in bounds.items())


# ------------------------------------------------------------------------------------------------ lists of keys


def _steps() -> str:
    """What each step of a pipeline becomes."""
    lines = [
        "## Steps of a pipeline",
        "",
        "What each step becomes. Those that become nothing are read and checked; the data loader does their work.",
        "",
        "| Step | Becomes | What it does |",
        "| --- | --- | --- |",
    ]
    for words in members(Dataset.model_fields["pipeline"].annotation):
        names = tags_of(words)
        step = words.model_validate(without_lists(smallest(words, names[0])), context=Reading())
        assert isinstance(step, Step)
        other = "sampling" if step.sampling() else "normalize" if step.normalize() else ""
        becomes: list[str] = [operation.kind for operation in step.operations()] or [other]
        about = " ".join((words.__doc__ or "").split())
        lines.append(f"| {_code(names)} | {_code(name for name in becomes if name) or 'nothing'} | {about} |")
    return "\n".join(lines) + "\n"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _keys(title: str, about: str, column: str, words: list[Word]) -> str:
    """Keys that set nothing, those of one fate together."""
    keys: dict[str, dict[str, None]] = {}
    for word in words:
        keys.setdefault(word.fate, {})[word.key] = None
    lines = [f"| {_code(names)} | {f'`{fate}`' if column == 'Value' else fate} |" for fate, names in keys.items()]
    return "\n".join([f"## {title}", "", about, "", f"| Keys | {column} |", "| --- | --- |", *lines]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
