"""The config reference: written from the code as it is, complete, and right about what sets what."""

import re

import pytest
from docs._words import BASE, MUST_BE_GIVEN, find_words

from docs import _generate as reference
from iwin.config import schema
from iwin.config.dialect import data, model, run, training
from iwin.config.dialect.run import Run
from iwin.config.dialect.words import Reading, Words, without_lists
from tests.docs.pages import ROOT

WORDS = find_words()
TRANSFORMS = [(f"data.<split>.transforms.{reference.kind_of(step)}", step) for step in reference.transforms()]
SETTINGS = {
    setting: info
    for path, group in [*((path, group) for _, path, group in reference.SECTIONS), *TRANSFORMS]
    for setting, info in reference.rows(path, group)
}


def test_it_is_up_to_date() -> None:
    written = reference.PAGE.read_text(encoding="utf-8")
    assert written == reference.page(), "run: python -m docs._generate"


def test_every_setting_can_be_set_by_a_config_file() -> None:
    assert [setting for setting in SETTINGS if not WORDS.of(setting)] == []


def test_every_group_of_settings_has_a_section() -> None:
    groups = {group for _, _, group in reference.SECTIONS} | set(reference.transforms())
    missing = {
        cls.__name__ for cls in vars(schema).values() if isinstance(cls, type) and issubclass(cls, schema.Settings)
    }
    assert missing - {group.__name__ for group in groups} == {"Settings", "DataSettings"}


def test_every_meaning_stands_in_one_place() -> None:
    documented = {".".join(setting.split(".")[-2:]) for setting, info in SETTINGS.items() if info.description}
    assert not documented & reference.PLAIN.keys()
    assert reference.PLAIN.keys() <= {".".join(setting.split(".")[-2:]) for setting in SETTINGS}


def test_every_key_of_the_dialect_is_accounted_for() -> None:
    known = {
        word.key.split(".")[-1]
        for group in (WORDS.effective, WORDS.inert, WORDS.fixed, WORDS.refused)
        for word in group
    }
    parents = {
        part for group in (WORDS.effective, WORDS.inert, WORDS.fixed) for word in group for part in word.key.split(".")
    }
    for module in (run, model, data, training):
        for words in vars(module).values():
            if isinstance(words, type) and issubclass(words, Words):
                assert words.model_fields.keys() <= known | parents | {
                    "type",
                    "policy",
                    "train",
                    "val",
                    "test",
                    "train_dataloader",
                    "val_dataloader",
                    "test_dataloader",
                }


@pytest.mark.parametrize(
    ("setting", "keys"),
    [
        ("model.num_classes", {"model.cls_head.num_classes"}),
        ("epochs", {"total_epochs", "runner.max_epochs"}),
        ("optim.mixed_precision", {"optimizer_config.use_fp16", "fp16"}),
        ("data.<split>.transforms.resize.size", {"Resize.scale", "Resize.keep_ratio"}),
        ("schedule.min_lr_ratio", {"lr_config.min_lr_ratio"}),
    ],
)
def test_it_finds_the_keys_that_set_a_setting(setting: str, keys: set[str]) -> None:
    assert {word.key for word in WORDS.of(setting)} == keys


def test_its_defaults_are_those_of_a_config_that_leaves_the_key_out() -> None:
    def default(setting: str, tag: str = "") -> str:
        return next(word.defaults[setting] for word in WORDS.of(setting) if tag in (word.tag, ""))

    assert default("model.backbone.patch_size") == "(4, 4, 4)"
    assert default("optim.weight_decay", "AdamW") == "0.01"
    assert default("optim.weight_decay", "SGD") == "0.0"
    assert default("optim.lr") == "must be given"


def test_defaults_are_those_of_the_smallest_config() -> None:
    run = Run.model_validate(without_lists(BASE), context=Reading()).settings()
    checked = set()
    for word in WORDS.effective:
        for setting, default in word.defaults.items():
            value: object = run
            for name in setting.replace("<split>", "train").split("."):
                value = getattr(value, name, None)
            if word.tag == "" and value is not None and default != MUST_BE_GIVEN and ".transforms" not in setting:
                checked.add(setting)
                assert default == repr(value), f"{setting} by {word.key}"
    assert {"data.bad_videos.policy", "data.<split>.num_workers", "evaluation.metrics"} <= checked


def test_it_knows_what_a_run_refuses() -> None:
    assert reference.not_supported().keys() <= SETTINGS.keys()
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    assert "not supported yet" not in sources, "a refusal that the reference does not know of"


def test_the_page_of_configs_names_keys_that_exist() -> None:
    text = (reference.PAGE.parent / "configs.md").read_text(encoding="utf-8")
    table = text.partition("## Settings that are changed most")[2]
    keys = {word.key for word in WORDS.effective}
    named = set(
        re.findall(r"`([\w<>]+(?:\.[\w<>]+)+|\w+)`(?=[ ,]*\|?)", "\n".join(re.findall(r"^\| (.*?) \|", table, re.M)))
    )
    assert named - {"None"} <= keys
