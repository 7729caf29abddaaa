"""The dialect of upstream's (mmaction's) config files; no other part of the program knows its words.

`words` says how words are checked; `model`, `steps`, `data` and `training` hold the words; `run` puts them together
as a whole file. Each class of words turns itself into our own settings (`schema`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from iwin.config.dialect.run import Run
from iwin.config.dialect.words import Problem, Reading, inert_settings, problems_of, without_lists
from iwin.config.reader import LoadedConfig, load_config
from iwin.config.schema import RunConfig
from iwin.errors import ConfigError, did_you_mean

__all__ = ["config_key", "load_run_config", "parse"]

_KEYS = {
    "optim": "optimizer",
    "optim.name": "optimizer.type",
    "optim.rules": "optimizer.paramwise_cfg.custom_keys",
    "optim.norm_decay_mult": "optimizer.paramwise_cfg.norm_decay_mult",
    "optim.bias_lr_mult": "optimizer.paramwise_cfg.bias_lr_mult",
    "optim.bias_decay_mult": "optimizer.paramwise_cfg.bias_decay_mult",
    "optim.grad_clip": "optimizer_config.grad_clip.max_norm",
    "optim.mixed_precision": "optimizer_config.use_fp16",
    "schedule": "lr_config",
    "blending": "model.train_cfg.blending",
}
"""Our settings, or groups of them, whose keys in a config file are others."""


def load_run_config(config: str | Path, options: Sequence[str] = ()) -> tuple[RunConfig, list[str]]:
    """Read a config file and say what it means; arguments as in `load_config`, result as in `parse`."""
    return parse(load_config(config, options))


def parse(loaded: LoadedConfig) -> tuple[RunConfig, list[str]]:
    """What a config means, and what is to be said about it.

    Args:
        loaded: the config as it was read.

    Returns:
        The run, and notes: settings without effect, readings that differ from upstream's, names that look misspelt.

    Raises:
        ConfigError: something is wrong; the error tells all of it, each with its place.
    """
    data = without_lists(loaded.data)
    reading = Reading()
    problems = list(_unknown_options(loaded))
    try:
        run = Run.model_validate(data, context=reading)
    except ValidationError as error:
        problems += problems_of(error, data, reading)
    else:
        problems += run.contradictions()
    if problems:
        raise ConfigError(_told(problems, loaded))
    return run.settings(), [*reading.notes, *run.remarks(), *_inert(run), *_odd_names(loaded)]


def config_key(setting: str) -> str:
    """The key in a config file for one of our settings, such as "optimizer.lr" for "optim.lr"."""
    groups = [key for key in _KEYS if setting == key or setting.startswith(f"{key}.")]
    known = max(groups, key=len, default="")
    return _KEYS.get(known, "") + setting.removeprefix(known)


def _told(problems: list[Problem], loaded: LoadedConfig) -> str:
    lines = [f"{loaded.origin(problem.path)}: {_key(problem.path)}: {problem.message}" for problem in problems]
    count = f"{len(lines)} problems" if len(lines) > 1 else "a problem"
    return "\n  ".join([f"{loaded.path.name} has {count}:", *lines])


def _key(path: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in path)


def _options(loaded: LoadedConfig) -> Iterator[tuple[str, str]]:
    """Each option with the top-level name that it is about."""
    for option in loaded.options:
        yield option, option.partition("=")[0].partition(".")[0].strip()


def _unknown_options(loaded: LoadedConfig) -> Iterator[Problem]:
    """Options for names that neither the dialect nor the file knows; mmcv would swallow them."""
    known = {*Run.model_fields, *loaded.file_names}
    for _, name in _options(loaded):
        if name not in known:
            yield Problem((name,), f"unknown key{did_you_mean(name, known)}")


def _inert(run: Run) -> Iterator[str]:
    """All settings without effect in one note."""
    keys: dict[str, list[str]] = {}
    for path, reason in inert_settings(run):
        keys.setdefault(reason, []).append(_key(path))
    if keys:
        yield "no effect here: " + "; ".join(f"{', '.join(names)} ({reason})" for reason, names in keys.items())


def _odd_names(loaded: LoadedConfig) -> Iterator[str]:
    """Variables of the file that are nearly a key, and options that only change a variable."""
    for name in sorted(loaded.file_names - Run.model_fields.keys()):
        if hint := did_you_mean(name, Run.model_fields, cutoff=0.85):
            yield f"{loaded.origin((name,))}: '{name}' is taken for a variable of the file{hint}"
    for option, name in _options(loaded):
        if name not in Run.model_fields:
            yield (
                f"option '{option}' has no effect: '{name}' is a variable of the file, and its value has already "
                "been used (mmcv's rule); set the key that it was used for"
            )
