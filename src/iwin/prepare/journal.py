"""What is done already, so that a command that was interrupted goes on where it stopped."""

import contextlib
import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from iwin.errors import DataError


class Journal:
    """A file with a line of JSON for each piece of work, written when it is done; for use in a ``with`` statement.

    A process killed in the middle of a line costs that line. Of two lines for the same piece the later one counts.

    Args:
        path: the file; made when needed, and read if it exists.

    Attributes:
        entries: what the lines say, by the name of the piece.

    Raises:
        DataError: if the file cannot be read or written, or another process uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+", encoding="utf-8", errors="surrogateescape")
            self._lock()
            self._file.seek(0)
            torn = self._read()
            if torn:
                self._file.write("\n")
        except OSError as error:
            raise DataError(f"{path}: the journal cannot be written ({error.strerror})") from None

    def _lock(self) -> None:
        """Keep others from the file until this process ends, however it does."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise DataError(
                f"{self.path}: another process is at work with this journal; wait for it, or end it"
            ) from None
        except OSError:
            pass  # some network file systems have no locks

    def _read(self) -> bool:
        """Take the lines in; whether the last one breaks off."""
        line = "\n"
        for line in self._file:
            try:
                entry = json.loads(line)
                self.entries[entry.pop("name")] = entry
            except (ValueError, AttributeError, KeyError, TypeError):
                continue
        return not line.endswith("\n")

    def add(self, name: str, entry: Mapping[str, Any]) -> None:
        """Write down that a piece is done."""
        self.entries[name] = dict(entry)
        try:
            self._file.write(json.dumps({"name": name, **entry}) + "\n")
            self._file.flush()
        except OSError as error:
            raise DataError(f"{self.path}: the journal cannot be written ({error.strerror})") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # of a full disk `add` has told
            self._file.close()
