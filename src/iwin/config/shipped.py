"""Finding a config file, by its path or by the name alone of one that is shipped with the package."""

from pathlib import Path

from iwin.errors import ConfigError, did_you_mean

_PACKAGE = Path(__file__).parents[1]


def shipped_configs() -> dict[str, Path]:
    """Name (without .py) and path of every config that comes with the package, in alphabetical order."""
    root = _shipped_root()
    files = sorted((root / "recognition").rglob("*.py")) if root else []
    return {file.stem: file for file in files}


def find_config(config: str | Path) -> Path:
    """The file that `config` names.

    Args:
        config: a path; or the name of a shipped config, with or without .py, alone or below `configs/` as it is
            written in a source checkout.

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(config).expanduser()
    if path.is_file():
        return path
    shipped = shipped_configs()
    found = shipped.get(path.name.removesuffix(".py"))
    if found and (len(path.parts) == 1 or path.parts[0] == "configs"):
        return found
    if path.is_dir():
        raise ConfigError(f"{config} is a folder; name a config file in it")
    hint = did_you_mean(path.name.removesuffix(".py"), shipped) or f"; shipped configs are {', '.join(shipped)}"
    raise ConfigError(f"there is no config file {config}{hint}")


def _shipped_root() -> Path | None:
    """`iwin/configs` of an installed wheel, else `configs` of the source checkout."""
    for root in (_PACKAGE / "configs", _PACKAGE.parents[1] / "configs"):
        if root.is_dir():
            return root
    return None
