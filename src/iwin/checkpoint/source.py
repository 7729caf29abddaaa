"""Where checkpoints come from: a path, an address on the web, or a repository of the Hugging Face Hub.

What is downloaded is kept: addresses below `torch.hub.get_dir()` (which TORCH_HOME moves), the Hub's files in its own
cache (which HF_HOME moves). Both are checked before they are used again.
"""

import contextlib
import hashlib
import http.client
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import Request, url2pathname, urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from iwin.checkpoint.io import Weights, read_weights, weights_format
from iwin.errors import CheckpointError
from iwin.files import write_atomically

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""File names of weights; a safetensors file goes before the others."""

TIMEOUT = 30
"""Seconds that a server may be silent."""

_CHUNK = 1 << 20
_HASHED_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
_DATE = re.compile(r"(19|20)\d{6}")
_FRAGMENT = re.compile(r"sha256=([0-9a-fA-F]{8,64})")
_REPOSITORY = r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w.-]+))?"
_BARE_ID = re.compile(_REPOSITORY)
_HUB_ID = re.compile(_REPOSITORY + r"(?:/(?P<file>[^@]+))?(?:@(?P<file_revision>[\w./-]+))?")


def open_weights(source: str | Path) -> Weights:
    """Read the checkpoint that a source names; see `resolve` and `read_weights`."""
    return read_weights(resolve(source))


def resolve(source: str | Path) -> Path:
    """The local file that a source names, downloaded where it has to be.

    Args:
        source: one of

            - a path;
            - `https://…` or `http://…`: downloaded once. It is verified where its SHA-256 is known: from a file name
              such as `name-1a2b3c4d.pth` (the first eight or more digits, as PyTorch and mmcv name files), or from
              `#sha256=<hex>` at the end of the address;
            - `file://…`: the file itself, verified in the same way;
            - `hf://org/name`, `hf://org/name/file`, each with `@revision` at its end or behind the name: a file of a
              Hub repository, by default `model.safetensors` or else the only file of weights. `org/name` alone does
              where no such path exists.

    Raises:
        CheckpointError: if it cannot be had, or is not what its checksum says.
    """
    if isinstance(source, Path):
        return source.expanduser()
    scheme, separator, _ = source.partition("://")
    if separator:
        match scheme.lower():
            case "http" | "https":
                return _from_web(source)
            case "file":
                return _from_file_url(source)
            case "hf":
                return _from_hub_url(source)
        raise CheckpointError(f"{source}: weights cannot come from {scheme}://; give a path, https:// or hf://")
    path = Path(source).expanduser()
    bare = _BARE_ID.fullmatch(source)
    # A slip in a path must not become a request to the Hub: its folder exists, or it ends like a file of weights.
    if bare is None or Path(path.parts[0]).exists() or _is_weights(source):
        return path
    try:
        return _from_hub(bare["repo"], file=None, revision=bare["revision"])
    except CheckpointError as error:
        raise CheckpointError(f"{source}: is no file here, and as a Hub repository: {error}") from None


def shown(source: str | Path) -> str:
    """A source as messages give it: an address without what may be secret in it."""
    text = str(source)
    return _shown(_split(text)) if re.match(r"https?://", text, re.IGNORECASE) else text


def _shown(url: SplitResult) -> str:
    return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))


def _split(source: str) -> SplitResult:
    try:
        url = urlsplit(source)
    except ValueError as error:
        raise CheckpointError(f"{source}: is no address ({error})") from None
    if "@" in url.netloc:
        raise CheckpointError(f"{_shown(url)}: an address with a user name in it is not supported; download it first")
    return url


def _is_weights(name: str) -> bool:
    return name.endswith(SUFFIXES)


# ---------------------------------------------------------------------------------------------- checksums


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expected_sha256(url: SplitResult) -> str:
    """The digits with which the SHA-256 of an address's file has to begin: none where it is not known."""
    if url.fragment:
        stated = _FRAGMENT.fullmatch(url.fragment)
        if stated is None:
            raise CheckpointError(
                f"{_shown(url)}: #{url.fragment} is not understood; write #sha256=<8 to 64 hex digits>"
            )
        return stated[1].lower()
    named = _HASHED_NAME.search(url.path)
    return named[1] if named and not _DATE.fullmatch(named[1]) else ""


def _check_sha256(name: str, found: str, expected: str) -> None:
    if not found.startswith(expected):
        raise CheckpointError(
            f"{name}: is not the file that was meant: its SHA-256 begins with {found[: len(expected)]}, "
            f"not with {expected}"
        )


# ---------------------------------------------------------------------------------------------- the web


def _from_file_url(source: str) -> Path:
    url = _split(source)
    if url.netloc not in ("", "localhost"):
        raise CheckpointError(f"{source}: a file:// address names a file of this machine: file:///path")
    path = Path(url2pathname(url.path))
    expected = _expected_sha256(url)
    if expected and path.is_file():
        _check_sha256(str(path), file_sha256(path), expected)
    return path


def _from_web(source: str) -> Path:
    """The cached file of an address: <hub dir>/iwin/<hash of the address>/<name>, its checksum in <name>.sha256."""
    import torch.hub

    url = _split(source)
    expected = _expected_sha256(url)
    address = urlunsplit(url._replace(fragment=""))
    name = re.sub(r"[^\w.-]", "_", unquote(url.path).rpartition("/")[2])[-100:].lstrip(".") or "weights"
    folder = Path(torch.hub.get_dir()) / "iwin" / hashlib.sha256(address.encode()).hexdigest()[:16]
    target = folder / name
    with _locked(folder):
        if not _is_sound(target, expected):
            try:
                _download(address, target, expected)
            except CheckpointError as error:
                if target.exists():
                    raise CheckpointError(f"{error}; its copy {target} does not have the right checksum") from None
                raise
    return target


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder of the cache alone: of many processes that want a file, one downloads it."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # exported, but not marked as such

    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(WeakFileLock(folder / ".lock"))
        except OSError as error:
            hint = "set TORCH_HOME to a folder that can"
            raise CheckpointError(f"{folder}: cannot be written ({error.strerror}); {hint}") from None
        yield


def _record(target: Path) -> Path:
    """Where the checksum of a cached file stands, in the form of `sha256sum`."""
    return target.with_name(f"{target.name}.sha256")


def _is_sound(target: Path, expected: str) -> bool:
    """Whether a cached file is there, whole, and the one that is meant."""
    try:
        recorded = _record(target).read_text(encoding="utf-8").split()[0]
        return recorded.startswith(expected) and file_sha256(target) == recorded
    except (OSError, IndexError, UnicodeDecodeError):
        return False


def _download(address: str, target: Path, expected: str) -> None:
    name = _shown(urlsplit(address))

    def write(temporary: Path) -> None:
        digest = _receive(address, temporary)
        _check_sha256(name, digest, expected)
        if weights_format(temporary) is None:
            raise CheckpointError(f"{name}: the server sent something that is no checkpoint; open it in a browser")
        line = f"{digest}  {target.name}\n"
        write_atomically(_record(target), lambda record: record.write_text(line, encoding="utf-8"))

    write_atomically(target, write)


def _receive(address: str, target: Path) -> str:
    """Write what a server sends to a file; returns its SHA-256."""
    name = _shown(urlsplit(address))
    digest = hashlib.sha256()
    received = 0
    try:
        request = Request(address, headers={"User-Agent": "iwin"})  # noqa: S310 - the caller allows http(s) only
        with urlopen(request, timeout=TIMEOUT) as response, target.open("wb") as file:  # noqa: S310
            size = int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
            with _progress() as progress:
                task = progress.add_task(target.name, total=size)
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    received += len(chunk)
                    progress.advance(task, len(chunk))
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = str(error.reason) if type(error) is URLError else str(error)
        raise CheckpointError(f"{name}: cannot be downloaded ({reason or type(error).__name__})") from None
    if size not in (None, received):
        raise CheckpointError(f"{name}: the download broke off after {received:,} of {size:,} bytes; try again")
    return digest.hexdigest()


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


# ---------------------------------------------------------------------------------------------- the Hub


def _from_hub_url(source: str) -> Path:
    parts = _HUB_ID.fullmatch(source.partition("://")[2])
    if parts is None or (parts["revision"] and parts["file_revision"]):
        raise CheckpointError(f"{source}: is not understood; write hf://org/name, with /file and @revision behind it")
    try:
        return _from_hub(parts["repo"], file=parts["file"], revision=parts["revision"] or parts["file_revision"])
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None


def _from_hub(repo: str, *, file: str | None, revision: str | None) -> Path:
    """A file of a Hub repository, from the cache where it is there and nothing newer is known."""
    from huggingface_hub import errors, hf_hub_download

    try:
        if file is None:
            file = _only_weights(repo, revision)
        path = Path(hf_hub_download(repo, file, revision=revision))
    except CheckpointError:
        raise
    except errors.GatedRepoError:
        raise CheckpointError(f"{repo} asks for consent; give it on its page, then run `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(f"there is no repository {repo}, or it is private and needs `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{repo} has no revision {revision}") from None
    except errors.LocalEntryNotFoundError:
        raise CheckpointError(f"{repo} is not in the cache, and the Hub cannot be reached") from None
    except errors.EntryNotFoundError:
        raise CheckpointError(f"{repo} has no file {file}") from None
    except Exception as error:  # the HTTP library beneath it, and its errors, change with its version
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise CheckpointError(f"{repo} cannot be fetched from the Hub ({reason})") from None
    blob = path.resolve().name  # large files are kept under their SHA-256
    if re.fullmatch(r"[0-9a-f]{64}", blob) and file_sha256(path) != blob:
        raise CheckpointError(f"the copy of {repo} in the cache is damaged; delete {path.resolve()} and try again")
    return path


def _only_weights(repo: str, revision: str | None) -> str:
    """The file of weights in a repository; of several, model.safetensors or the only safetensors file."""
    from huggingface_hub import HfApi, errors, hf_hub_download

    try:
        hf_hub_download(repo, "model.safetensors", revision=revision)
    except errors.LocalEntryNotFoundError:
        names = _cached_names(repo, revision or "main")
    except errors.EntryNotFoundError:
        names = HfApi().list_repo_files(repo, revision=revision)
    else:
        return "model.safetensors"
    found = [name for name in names if _is_weights(name)]
    for suffix in SUFFIXES[0], "":
        chosen = [name for name in found if name.endswith(suffix)]
        if len(chosen) == 1:
            return chosen[0]
    if not names:
        raise CheckpointError(f"{repo} is not in the cache, and the Hub cannot be reached")
    if not found:
        raise CheckpointError(f"{repo} holds no file of weights ({', '.join(SUFFIXES)})")
    raise CheckpointError(f"{repo} holds several files of weights; name one: {', '.join(found)}")


def _cached_names(repo: str, revision: str) -> list[str]:
    """Files of a repository's revision (a branch, tag or commit) that are in the cache."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        cached = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return [
        file.file_path.relative_to(version.snapshot_path).as_posix()
        for entry in cached
        if entry.repo_id == repo and entry.repo_type == "model"
        for version in entry.revisions
        if revision in version.refs or version.commit_hash.startswith(revision)
        for file in version.files
    ]
