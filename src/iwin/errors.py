"""Errors that speak to the user: one sentence saying what is wrong, where, and what to do.

The command line prints such an error as that one sentence and exits non-zero; anything else that escapes is a bug
and keeps its traceback.
"""

import difflib
from collections.abc import Iterable, Sequence


class IwinError(ValueError):
    """Base of all errors that a user can cause and mend."""


class ConfigError(IwinError):
    """A config file or a ``--cfg-options`` value that cannot be used."""


class DataError(IwinError):
    """An annotation list, class folder or data setting that cannot be used."""


class BadVideosError(DataError):
    """Too many videos of a split cannot be read; all processes of a run raise it together."""


class VideoError(IwinError):
    """A video file that cannot be opened or decoded."""


class CheckpointError(IwinError):
    """A checkpoint that cannot be read, or that does not fit the model."""


class ModelError(IwinError):
    """A model name, size or input that does not exist or does not fit."""


def first_of(names: Sequence[object], most: int = 5) -> str:
    """`a, b, c, …`: names, of which no more than so many are told."""
    return ", ".join(map(str, names[:most])) + (", …" if len(names) > most else "")


def did_you_mean(word: object, known: Iterable[object], *, cutoff: float = 0.6) -> str:
    """`" (did you mean 'x'?)"` for the known word nearest to `word`, or an empty string when none is near."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=cutoff)
    return f" (did you mean '{near[0]}'?)" if near else ""
