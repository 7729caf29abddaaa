"""Config files: read as data, checked against what is understood, turned into a typed `RunConfig`."""

from iwin.config.dialect import config_key, load_run_config, parse
from iwin.config.reader import LoadedConfig, load_config, read_config
from iwin.config.schema import RunConfig
from iwin.config.shipped import find_config, shipped_configs
from iwin.config.writer import dump_config

__all__ = [
    "LoadedConfig",
    "RunConfig",
    "config_key",
    "dump_config",
    "find_config",
    "load_config",
    "load_run_config",
    "parse",
    "read_config",
    "shipped_configs",
]
