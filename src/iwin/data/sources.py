"""Where bytes come from: files on this machine, and whatever fsspec reaches (s3://, gs://, hf://, https://, memory://).

A video behind an address is fetched whole before it is decoded. Opening a video reads every packet of it anyway
(``iwin.data.pyav``), so reading it in blocks would ask the server many times for the same bytes. What is larger than
``IN_MEMORY`` goes to a temporary file instead of memory.

No file system is kept here, and none crosses from one process to another: fsspec makes one for each process and
address kind when it is first asked.
"""

import io
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar
from urllib.parse import unquote

from iwin.errors import DataError, IwinError, VideoError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_T = TypeVar("_T")

IN_MEMORY = 64 * 2**20
"""Bytes of a fetched video that are held in memory at most; also what is asked for at once."""

RETRY_DELAYS = (0.5, 2.0)
"""Seconds to wait before asking again after trouble that may pass."""

_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+)(::|://)", re.IGNORECASE)

_CHAIN = re.compile(r"(?P<outer>(?:[a-z][a-z0-9+.-]+::)*)(?P<path>.*?)(?P<inner>::.*)?", re.IGNORECASE | re.DOTALL)
"""fsspec's chains, as in simplecache::zip://clips/a.mp4::s3://bucket/clips.zip: the path is that of the first link that
has one."""

_EXTRAS = {"s3": "iwin[s3]", "s3a": "iwin[s3]", "http": "iwin[http]", "https": "iwin[http]"}
_EXTRAS |= {"gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


class File(NamedTuple):
    """A file below a folder.

    Attributes:
        parts: folders and name, from the folder on; spaces are spaces.
        path: where it is, folder included: a path or an address.
    """

    parts: tuple[str, ...]
    path: str


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether this is an address such as s3://bucket/clip.mp4 instead of a path."""
    return _ADDRESS.match(os.fspath(path)) is not None


def path_in(place: str) -> PurePosixPath:
    """The path in an address, or the path itself; for its names and its suffix, not to be opened."""
    return PurePosixPath(_links(place)[1] if is_url(place) else place)


def join(root: str, name: str) -> str:
    """The place of `name`, which may be a path or an address of its own, seen from `root`."""
    if is_url(name) or not root:
        return name
    if is_url(root):
        outer, path, inner = _links(root)
        return f"{outer}{path}{'' if path.endswith('/') else '/'}{name.lstrip('/')}{inner}"
    return str(Path(root) / name)


def beside(place: str, name: str) -> str:
    """The place of the file `name` in the folder that holds `place`; of the folder itself if the name is empty."""
    if is_url(place):
        outer, path, inner = _links(place)
        return f"{outer}{path.rstrip('/').rpartition('/')[0]}/{name}{inner}"
    return str(Path(place).parent / name)


def _links(url: str) -> tuple[str, str, str]:
    """What stands in an address before its path, the path with its scheme, and what stands behind it."""
    match = _CHAIN.fullmatch(url)
    assert match is not None, "it matches any text"
    return match["outer"], match["path"], match["inner"] or ""


# ------------------------------------------------------------------------------------------- videos


def open_bytes(path: str, *, offset: int = 0, size: int | None = None) -> BinaryIO:
    """Open an address, or a part of a file or address, as a file that can be read and sought in.

    Args:
        path: an address; with `size`, also a file on this machine.
        offset: the part's first byte.
        size: the part's number of bytes; None reads to the end.

    Raises:
        VideoError: telling a file that is missing from one that may not be read and from a server that does not answer.
    """
    if not is_url(path):
        assert size is not None, "a whole file on this machine is opened by its path"
        return _open_section(path, offset, size)
    file = _fetch(path, offset, size)
    if file.read(1) == b"":
        file.close()
        raise VideoError(f"{path}: the file is empty; store it again or take it off the list")
    file.seek(0)
    return file


def _fetch(url: str, offset: int, size: int | None) -> BinaryIO:
    """The bytes of an address, in memory if they fit."""
    wanted = IN_MEMORY if size is None else min(size, IN_MEMORY)
    first = _piece(url, offset, wanted)
    if size is not None and len(first) > wanted:
        raise VideoError(f"{url}: the server does not give parts of a file, which shards need; copy the shards to disk")
    if len(first) < wanted or len(first) == size or (size is None and len(first) > wanted):
        if size is not None and len(first) < size:
            raise _ended_early(url, offset + size)
        return io.BytesIO(first)
    end = offset + size if size is not None else int(_ask(url, lambda fs, path: fs.info(path)["size"], VideoError))
    file = tempfile.TemporaryFile()  # noqa: SIM115 (its reader closes it)
    try:
        file.write(first)
        for start in range(offset + wanted, end, IN_MEMORY):
            piece = _piece(url, start, min(IN_MEMORY, end - start))
            if not piece:
                raise _ended_early(url, end)
            file.write(piece)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _piece(url: str, start: int, size: int) -> bytes:
    def cat(file_system: "AbstractFileSystem", path: str) -> bytes:
        try:
            return file_system.cat_file(path, start=start, end=start + size)
        except Exception as error:
            # What a server says to a wish for the first bytes of an empty file.
            if start == 0 and (_status(error) == 416 or "range is not satisfiable" in str(error)):
                return b""
            raise

    return _ask(url, cat, VideoError)


def _ended_early(url: str, end: int) -> VideoError:
    return VideoError(f"{url}: ends before byte {end}; store it again, or make its index anew")


class _Section(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]  # any writable buffer
        count = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._offset + self._at)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def unreadable(path: str, error: OSError) -> VideoError:
    """What to say of a video that the system does not let anyone, or this user, read."""
    cause = "permissions" if isinstance(error, PermissionError) else "disk"
    return VideoError(f"{path}: cannot be read ({error.strerror}); see to its {cause}, or take it off the list")


def _open_section(path: str, offset: int, size: int) -> BinaryIO:
    try:
        file = Path(path).open("rb", buffering=0)  # noqa: SIM115 (the section closes it)
    except FileNotFoundError:
        raise VideoError(f"{path}: no such file; check the path and the folder it is relative to") from None
    except OSError as error:
        raise unreadable(path, error) from None
    if os.fstat(file.fileno()).st_size < offset + size:
        file.close()
        raise _ended_early(path, offset + size)
    return io.BufferedReader(_Section(file, offset, size), 2**16)


# ------------------------------------------------------------------------------------------- lists and folders


def read_bytes(path: str) -> bytes:
    """All bytes of a file or an address.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it cannot be reached or read.
    """
    if is_url(path):
        return _ask(path, lambda file_system, name: file_system.cat_file(name), DataError, missing_is_error=False)
    try:
        return Path(path).read_bytes()
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def exists(path: str) -> bool:
    """Whether there is such a file, folder or address.

    Raises:
        DataError: an address's server cannot be asked.
    """
    if not is_url(path):
        return Path(path).exists()
    try:
        _ask(path, lambda file_system, name: file_system.info(name), DataError, missing_is_error=False)
    except FileNotFoundError:
        return False
    return True


def _files_here(root: str) -> Iterator[File]:
    """All files below a folder of this machine; links to folders are followed, once each."""
    seen = {os.path.realpath(root)}
    for folder, folders, names in os.walk(root, followlinks=True):
        for name in names:
            yield File((*Path(folder).relative_to(root).parts, name), str(Path(folder) / name))
        place = {name: os.path.realpath(Path(folder) / name) for name in folders}
        folders[:] = [name for name in folders if place[name] not in seen]
        seen.update(place.values())


def files_below(root: str) -> Iterator[File]:
    """All files below a folder or an address that can be listed, in the order of their parts.

    Links that lead nowhere are among them: what was there once is missing, which reading it will tell.

    Raises:
        DataError: an address's server cannot be asked, or cannot list.
    """
    if not is_url(root):
        return iter(sorted(_files_here(root)))
    quoted = root.startswith("http")

    def find(file_system: "AbstractFileSystem", top: str) -> list[File]:
        top = top.rstrip("/")
        above = f"{top}/" if top else ""
        names = [path.removeprefix(above) for path in file_system.find(top) if path.startswith(above)]
        return [File(tuple((unquote(name) if quoted else name).split("/")), join(root, name)) for name in names]

    return iter(sorted(_ask(root, find, DataError)))


def state_of(path: str) -> str:
    """A text that changes when a file or what is at an address does.

    Raises:
        DataError: there is no such file, or its server cannot be asked.
    """
    if is_url(path):
        return _ask(path, lambda fs, name: f"{fs.info(name)['size']} {fs.ukey(name)}", DataError)
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return f"{stat.st_size} {stat.st_mtime_ns}"


def look_into(path: str, look: Callable[[BinaryIO], _T]) -> _T:
    """What `look` finds in a file of which it reads small parts here and there.

    Raises:
        DataError: the file cannot be read.
    """
    if is_url(path):
        return _ask(path, lambda fs, name: look(fs.open(name, "rb", block_size=2**16)), DataError)
    try:
        with Path(path).open("rb") as file:
            return look(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


# ------------------------------------------------------------------------------------------- asking a server


def _ask(
    url: str,
    question: "Callable[[AbstractFileSystem, str], _T]",
    error_type: type[IwinError],
    *,
    missing_is_error: bool = True,
) -> _T:
    """Ask the file system of an address, again where trouble may pass."""
    from fsspec.core import url_to_fs

    delays = iter(RETRY_DELAYS)
    while True:
        try:
            file_system, path = url_to_fs(url)
            return question(file_system, path)
        except IwinError:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and not missing_is_error:
                raise
            delay = next(delays, None) if _may_pass(error) else None
            if delay is None:
                raise error_type(f"{url}: {_explain(error, url)}") from error
            time.sleep(delay)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of aiohttp or the Hugging Face Hub carries."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_unreachable(error: BaseException) -> bool:
    names = " ".join(kind.__name__ for kind in type(error).__mro__)  # each library has errors of its own
    return isinstance(error, ConnectionError | TimeoutError) or "Connect" in names or "Timeout" in names


def _may_pass(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    return _is_unreachable(error) or isinstance(error, OSError)


def _explain(error: Exception, url: str) -> str:
    """The trouble and what to do, after the address."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    kind = type(error).__name__
    scheme = url.partition(":")[0]
    if isinstance(error, FileNotFoundError) or _status(error) == 404:
        return "there is no such file; check the address"
    if isinstance(error, ImportError):
        return f"reading {scheme}:// needs another package: pip install '{_EXTRAS.get(scheme, scheme)}' ({said})"
    if isinstance(error, ValueError) and "Protocol not known" in said:
        return f"{scheme}:// is no kind of address that fsspec knows"
    if isinstance(error, PermissionError) or _status(error) in (401, 403) or "Credential" in kind:
        return f"no access ({said}); give credentials as the storage's own tools take them, from the environment"
    if _is_unreachable(error):
        return f"the server cannot be reached ({said}); check the address, the network and the endpoint"
    return f"cannot be fetched ({kind}: {said})"
