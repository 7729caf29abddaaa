"""Files and folders that are there whole or not at all."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iwin.errors import IwinError


def save_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON, atomically."""
    text = json_text(value, indent=2) + "\n"
    write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def json_text(value: Any, *, indent: int | None = None) -> str:
    r"""A value as JSON in letters of all languages; what is no UTF-8 in a name is escaped, as in `caf\udce9.mp4`.

    Reading it gives the same name again.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return re.sub(r"[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):x}", text)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name, then move it to `path`: readers see the old one or the new one.

    Raises:
        IwinError: if the file cannot be written; the old one is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _make_folder_of(path)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise IwinError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):  # there may be none, and of what kept it from being written is told
            temporary.unlink()


def _make_folder_of(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        standing = next(folder for folder in path.parents if folder.exists())
        raise IwinError(f"{path}: cannot be written, since {standing} is a file and no folder") from None
    except OSError as error:
        raise IwinError(f"{path}: cannot be written ({error.strerror or error})") from None


def check_writable(path: Path) -> None:
    """Say before long work, not after it, that a file cannot be written; its folder is made.

    Raises:
        IwinError: if it cannot.
    """
    if path.is_dir():
        raise IwinError(f"{path}: is a folder; name a file in it")
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    _make_folder_of(path)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise IwinError(f"{path}: cannot be written ({error.strerror or error})") from None


def empty_folder(path: Path) -> None:
    """Make a folder, without what an earlier attempt left in it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def replace_folder(staging: Path, path: Path) -> None:
    """Put a filled folder in the place of another.

    The old one stands as "<path>.old" for the moment between two renames; `completed_folder` finds it there after a
    crash.
    """
    old = path.with_name(f"{path.name}.old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    staging.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def completed_folder(path: Path) -> Path:
    """Where the folder stands that `replace_folder` last completed: at its path, or after a crash beside it."""
    old = path.with_name(f"{path.name}.old")
    return old if old.exists() and not path.exists() else path


def link(source: Path, target: Path) -> None:
    """Give a written file a second name, atomically and without a copy where the file system can."""

    def make(temporary: Path) -> None:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)

    write_atomically(target, make)
