"""Errors that speak to the user: one sentence saying what is wrong, where, and what to do.

The command line prints such an error as that one sentence and exits non-zero; anything else that escapes is a bug
and keeps its traceback.
"""


class IwinError(ValueError):
    """Base of all errors that a user can cause and mend."""


class ConfigError(IwinError):
    """A config file or a ``--cfg-options`` value that cannot be used."""


class DataError(IwinError):
    """An annotation list, class folder or data setting that cannot be used."""


class VideoError(IwinError):
    """A video file that cannot be opened or decoded."""


class CheckpointError(IwinError):
    """A checkpoint that cannot be read, or that does not fit the model."""


class ModelError(IwinError):
    """A model name, size or input that does not exist or does not fit."""
