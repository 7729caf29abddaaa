"""What a run tells: JSON lines always, a progress bar where there is a terminal, plain lines where there is none."""

import errno
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from iwin.errors import DataError, IwinError

T = TypeVar("T")


def progress(items: Iterable[T], *, console: Console, title: str, total: int, done: int = 0) -> Iterator[T]:
    """Iterate with a progress bar where the console is a terminal, silently where it is not."""
    if not console.is_terminal:
        yield from items
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, completed=done)
        for item in items:
            yield item
            bar.advance(task)


class RunLog:
    """The records of a run, on the console and as a line of JSON each in a file.

    Args:
        path: the JSON-lines file; records are appended. None keeps none (processes other than the first).
        console: where lines for people go.
        waits: whether records wait in memory until `open` is called, so that a run which is refused writes nothing.
    """

    def __init__(self, path: Path | None, console: Console, *, waits: bool = False) -> None:
        self.path = path
        self.console = console
        self._waiting: list[bytes] | None = [] if waits and path is not None else None

    def open(self) -> None:
        """Write the records that wait, and from now on each at once."""
        waiting, self._waiting = self._waiting or [], None
        for line in waiting:
            self._write(line)

    def record(self, mode: str, **values: Any) -> None:
        """Append a record of some mode ("train", "val", …) to the file.

        Raises:
            IwinError: if it cannot be written; no part of it is in the file then.
        """
        record = {"mode": mode, **values, "timestamp": round(time.time(), 3)}
        text = json.dumps({key: value if _is_json(value) else None for key, value in record.items()})
        line = f"{text}\n".encode()
        if self._waiting is not None:
            self._waiting.append(line)
        else:
            self._write(line)

    def _write(self, line: bytes) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                written = file.write(line)
                if written != len(line):
                    file.truncate(file.tell() - written)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise IwinError(f"{self.path}: the log cannot be written ({error.strerror or error})") from None

    def say(self, text: str) -> None:
        """Print a line for people."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a line that must not be overlooked, and record it."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True, style="yellow")
        self.record("warning", message=text)


def _is_json(value: Any) -> bool:
    """JSON has no word for NaN and infinity."""
    return not isinstance(value, float) or math.isfinite(value)


LOG_NAME = "log.jsonl"
"""The log's name in a work directory."""


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The records of a run's log, ours or upstream's (`*.log.json`); a work directory stands for the log in it.

    Raises:
        DataError: if there is no such log, or the file is none.
    """
    path = Path(path)
    path = path / LOG_NAME if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{path}: the log cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no log: not a text file in UTF-8") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines):
                break  # a run that is going on may be writing it
            raise DataError(f"{path}:{number}: is no line of JSON, as every line of a run's log is") from None
        if isinstance(record, dict) and "mode" in record:  # upstream's first line has none: it tells the environment
            records.append(record)
    if not records:
        raise DataError(f"{path}: holds no records of a run (lines of JSON with a mode)")
    return records
