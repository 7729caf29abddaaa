"""Downloading files that may take days: resumed where they stopped, checked, moved into place when they are whole."""

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from iwin import __version__
from iwin.errors import IwinError
from iwin.files import save_json

_BLOCK = 1 << 20
_TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""

Progress = Callable[[int, int | None], None]

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP states that may pass."""


@dataclass(frozen=True)
class Remote:
    """What a server says of a file.

    Attributes:
        size: bytes, or None where it does not say.
        tag: its ETag or else its date, which changes with the content; None where it says neither.
    """

    size: int | None
    tag: str | None


class DownloadError(IwinError):
    """A file that could not be downloaded."""


class _BrokenError(Exception):
    """A trouble that may pass: the connection, or a busy server."""


def ask(url: str, *, attempts: int = 3, wait: float = 1.0) -> Remote:
    """What the server says of a file, without fetching it.

    Args:
        url: its address.
        attempts: how often to try.
        wait: seconds before the second attempt; doubled before each further one.

    Raises:
        DownloadError: if it does not give it.
    """
    while True:
        try:
            with _open(url, {}, method="HEAD") as response:
                return _remote(response)
        except _BrokenError as trouble:
            attempts -= 1
            if attempts <= 0:
                raise DownloadError(f"{url}: {trouble}") from None
        time.sleep(wait)
        wait *= 2


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    attempts: int = 8,
    wait: float = 1.0,
    progress: Progress | None = None,
) -> Path:
    """Download a file to `path`; what an earlier attempt left in `<path>.part` is not fetched again.

    A part is continued only if the server says that the file is still the same one (ETag or date); the file is moved to
    `path` once it has the size that the server names.

    Args:
        url: its address.
        path: where to put it; an existing file there is left as it is.
        sha256: what the SHA-256 sum of its content must be, where that is known.
        attempts: how often to try without a byte of progress.
        wait: seconds before the second attempt; doubled before each further one, up to a minute.
        progress: told the bytes so far and the whole size, where the server names it.

    Raises:
        DownloadError: if it cannot be had; what there is of it stays for the next time.
    """
    if path.exists():
        return path
    part, state = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        left = attempts
        while True:
            before = _size(part)
            try:
                _continue(url, part, state, progress)
                break
            except _BrokenError as trouble:
                left = attempts if _size(part) > before else left - 1
                if left <= 0:
                    raise DownloadError(f"{url}: {trouble}; run the command again to go on from there") from None
                time.sleep(min(60.0, wait * 2 ** (attempts - left)))
        if sha256 and (found := _sha256(part)) != sha256:
            part.unlink()
            state.unlink(missing_ok=True)
            raise DownloadError(f"{url}: its SHA-256 sum is {found}, not {sha256}; it was thrown away")
        part.replace(path)
        state.unlink(missing_ok=True)
    except OSError as error:
        raise DownloadError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path


def _continue(url: str, part: Path, state: Path, progress: Progress | None) -> None:
    """Fetch what is missing of a part.

    Raises:
        _BrokenError: if the connection ended before the file did.
        DownloadError: if the file has another size than the server names.
    """
    done, known = _size(part), _known(state)
    tag = known.get("tag") if known.get("url") == url else None
    if done and tag is not None and known.get("size") == done:
        return
    headers = {"Range": f"bytes={done}-", "If-Range": str(tag)} if done and tag else {}
    try:
        response = _open(url, headers)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is longer than the file: it is another one
            part.unlink(missing_ok=True)
            raise _BrokenError("the file there has changed") from None
        raise
    with response:
        remote = _remote(response)
        start = _first_byte(response) if response.status == 206 else 0
        if start != done and start != 0:
            raise DownloadError(f"{url}: the server sent bytes from {start} on, and {done} were asked for")
        size = remote.size if remote.size is None or response.status != 206 else _whole_size(response)
        done = start
        with part.open("r+b" if part.exists() else "wb") as file:
            file.seek(start)
            file.truncate()  # before the new file's mark is kept: bytes of an old one must not pass for its
            save_json(state, {"url": url, "size": size, "tag": remote.tag})
            for block in _blocks(response):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, size)
    if size is not None and done < size:
        raise _BrokenError(f"the connection ended after {done} of {size} bytes")
    if size is not None and done > size:
        part.unlink()
        raise DownloadError(f"{url}: {done} bytes came, and the server names {size}; they were thrown away")


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            block = response.read(_BLOCK)
        except http.client.IncompleteRead as error:
            yield error.partial
            return
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(f"the connection broke ({error})") from None
        if not block:
            return
        yield block


def _open(url: str, headers: dict[str, str], *, method: str = "GET") -> http.client.HTTPResponse:
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"{url}: is no http or https address")
    # Without this header a server may send the file compressed, and its size would not be that of the file.
    asked = {"User-Agent": f"iwin/{__version__}", "Accept-Encoding": "identity", **headers}
    request = urllib.request.Request(url, headers=asked, method=method)  # noqa: S310 — the scheme is checked
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _PASSING:
                raise _BrokenError(f"the server says {error.code} {error.reason}") from None
            if error.code == 416:
                raise
            raise DownloadError(f"{url}: the server says {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(f"cannot be reached ({getattr(error, 'reason', None) or error})") from None
    return response


def _remote(response: http.client.HTTPResponse) -> Remote:
    length = response.headers.get("Content-Length", "")
    tag = response.headers.get("ETag", "")
    strong = tag if tag and not tag.startswith("W/") else None  # a weak one does not promise the same bytes
    return Remote(
        size=int(length) if length.isdecimal() else None,
        tag=strong or response.headers.get("Last-Modified"),
    )


def _range(response: http.client.HTTPResponse) -> re.Match[str] | None:
    return re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))


def _first_byte(response: http.client.HTTPResponse) -> int:
    match = _range(response)
    return int(match[1]) if match else 0


def _whole_size(response: http.client.HTTPResponse) -> int | None:
    match = _range(response)
    return int(match[2]) if match and match[2].isdecimal() else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _known(state: Path) -> dict[str, Any]:
    try:
        known = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
