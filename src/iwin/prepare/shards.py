"""Pack a data set into WebDataset tar files of bounded size, with an index to open any video by a seek.

A folder of shards holds

- shard-000000.tar, shard-000001.tar, …: uncompressed tar files (USTAR). The members of a sample stand together, in the
  order KEY.cls, KEY.json, KEY.<suffix>. KEY is the sample's place in the whole set, counted from 0, with the same
  number of digits everywhere (at least six); keys rise from shard to shard.
  KEY.cls: the label in decimal digits; only where the video has exactly one.
  KEY.json: {"path": the video's path in its list, "labels": [its labels]}.
  KEY.<suffix>: the file as it was; the suffix is the file's own in small letters.
- index.json, written last; a folder without it is not finished. One JSON object:
  "format": "iwin-shards"; "version": 1;
  "num_samples"; "num_bytes": of the videos together;
  "classes": names by label, or null;
  "seed": of the order, or null for the source's;
  "plan": what the shards were made of, as a digest; readers pass over it;
  "shards": in order, each {"name": file name, "num_bytes": of the tar file, "samples": in order, each {"member": name
  of the video's member, "path": its path in its list, "labels": [its labels], "offset": of its first byte in the tar
  file, "size": its number of bytes}}.

So a reader needs the index alone: it seeks to `offset` and reads `size` bytes. The same videos, order and bounds give
the same bytes on every machine.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from iwin.data.annotations import Sample
from iwin.data.sources import is_url, unreadable
from iwin.data.workers import Lost, report_progress
from iwin.errors import DataError, IwinError
from iwin.files import json_text, save_json, write_atomically
from iwin.prepare.pool import run_all
from iwin.prepare.probe import VideoFacts
from iwin.prepare.splits import Split

INDEX_NAME = "index.json"

PLAN_NAME = "plan.json"
"""Stands in a folder whose shards are being written: a run with another plan does not touch them."""

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A video that goes into a shard.

    Attributes:
        key: the first part of its members' names.
        source: the file.
        path: as its list holds it.
        labels: its classes.
        size: of the file in bytes.
    """

    key: str
    source: str
    path: str
    labels: tuple[int, ...]
    size: int

    @property
    def name(self) -> str:
        """Name of the video's member."""
        return f"{self.key}{PurePosixPath(self.path).suffix.lower() or '.mp4'}"

    def notes(self) -> list[tuple[str, bytes]]:
        """Names and contents of the members before the video."""
        text = json_text({"path": self.path, "labels": list(self.labels)})
        label = [(f"{self.key}.cls", str(self.labels[0]).encode())] if len(self.labels) == 1 else []
        return [*label, (f"{self.key}.json", text.encode())]

    @property
    def tar_size(self) -> int:
        """Bytes that all its members take in a tar file, headers and padding included."""
        sizes = [self.size, *(len(content) for _, content in self.notes())]
        return sum(_BLOCK + _padded(size) for size in sizes)


@dataclass(frozen=True)
class Shard:
    """A tar file to be written.

    Attributes:
        target: the file.
        members: what goes into it, in order.
    """

    target: Path
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Plan:
    """What goes where.

    Attributes:
        shards: the tar files.
        classes: names by label.
        seed: of the order.
        lacking: videos that are left out, each with why.
        digest: of all this, and of the files' times.
    """

    shards: tuple[Shard, ...]
    classes: tuple[str, ...] | None
    seed: int | None
    lacking: tuple[str, ...]
    digest: str


def plan_shards(split: Split, out: Path, *, max_size: int, max_count: int, seed: int | None) -> Plan:
    """Share the videos of a split out to shards.

    Args:
        split: the videos.
        out: the folder of the shards.
        max_size: bytes of a shard at most, except that each holds one video at least.
        max_count: videos of a shard at most.
        seed: of a random order; None keeps the split's.

    Raises:
        DataError: if there is no video file at all, or samples are not files on this machine.
    """
    found: list[tuple[Sample, VideoFacts]] = []
    lacking = []
    for sample in split.samples:
        facts = VideoFacts.of_sample(sample)
        if sample.stored is not None or is_url(sample.path):
            raise DataError(f"{sample.path}: is no file on this machine; shards are made of video files")
        if facts.problem is not None:
            lacking.append(f"{facts.reason}; it is left out")
        else:
            found.append((sample, facts))
    if not found:
        raise DataError(f"{split.annotations.source}: none of its {len(split.samples)} videos is there to be packed")
    if seed is not None:
        found = [found[place] for place in np.random.default_rng(seed).permutation(len(found))]
    digits = max(6, len(str(len(found) - 1)))
    members = [
        Member(f"{place:0{digits}}", sample.path, split.relative(sample.path), sample.labels, facts.size or 0)
        for place, (sample, facts) in enumerate(found)
    ]
    groups = list(_share_out(members, max_size=max_size, max_count=max_count))
    shards = tuple(Shard(out / f"shard-{place:06}.tar", group) for place, group in enumerate(groups))
    classes = split.annotations.classes
    times = [facts.mtime_ns for _, facts in found]
    contents = [[member.path, member.labels, member.size] for member in members]
    text = json.dumps([contents, times, [len(group) for group in groups], classes, seed])
    return Plan(shards, classes, seed, tuple(lacking), hashlib.blake2b(text.encode(), digest_size=16).hexdigest())


def _share_out(members: Sequence[Member], *, max_size: int, max_count: int) -> Iterator[tuple[Member, ...]]:
    group: list[Member] = []
    content = 0
    for member in members:
        if group and (_tar_size(content + member.tar_size) > max_size or len(group) == max_count):
            yield tuple(group)
            group, content = [], 0
        group.append(member)
        content += member.tar_size
    yield tuple(group)


def _tar_size(content: int) -> int:
    """Bytes of a tar file: it ends with two blocks of zeros, and then more up to a whole record."""
    return -(-(content + 2 * _BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def write_shards(plan: Plan, out: Path, *, processes: int, time_limit: float) -> Iterator[Shard]:
    """Write the shards that are not there yet, each whole or not at all, then the index.

    Args:
        plan: what goes where.
        out: the folder.
        processes: shards written at the same time.
        time_limit: seconds without progress after which a shard, and with it the command, is given up.

    Yields:
        Each shard that is there.

    Raises:
        DataError: if the folder holds other shards, or a video changes while it is packed.
        IwinError: if a shard cannot be written.
    """
    _claim(plan, out)
    waiting = []
    for shard in plan.shards:
        if shard.target.exists():
            yield shard
        else:
            waiting.append(shard)
    for place, result in run_all(_write_shard, waiting, processes=processes, time_limit=time_limit):
        if isinstance(result, IwinError):
            raise result
        if isinstance(result, Lost):
            raise DataError(f"{waiting[place].target}: {result.reason}")
        yield waiting[place]
    text = json_text(_index(plan))  # not indented: half the bytes
    write_atomically(out / INDEX_NAME, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    (out / PLAN_NAME).unlink()


def is_finished(plan: Plan, out: Path) -> bool:
    """Whether the folder holds all shards of this plan and their index."""
    return _plan_in(out / INDEX_NAME) == plan.digest and all(shard.target.exists() for shard in plan.shards)


def _claim(plan: Plan, out: Path) -> None:
    """Note in the folder what is being written there."""
    if any(out.glob("shard-*.tar")) and plan.digest not in (_plan_in(out / PLAN_NAME), _plan_in(out / INDEX_NAME)):
        raise DataError(f"{out}: holds shards of other videos or bounds; name another folder, or remove them")
    for left in out.glob(".shard-*.tmp"):
        left.unlink()
    save_json(out / PLAN_NAME, {"plan": plan.digest})


def _plan_in(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _index(plan: Plan) -> dict[str, Any]:
    members = [member for shard in plan.shards for member in shard.members]
    return {
        "format": "iwin-shards",
        "version": 1,
        "num_samples": len(members),
        "num_bytes": sum(member.size for member in members),
        "classes": None if plan.classes is None else list(plan.classes),
        "seed": plan.seed,
        "plan": plan.digest,
        "shards": [
            {
                "name": shard.target.name,
                "num_bytes": shard.target.stat().st_size,
                "samples": [
                    {
                        "member": member.name,
                        "path": member.path,
                        "labels": list(member.labels),
                        "offset": offset,
                        "size": member.size,
                    }
                    for member, offset in zip(shard.members, _offsets(shard), strict=True)
                ],
            }
            for shard in plan.shards
        ],
    }


def _offsets(shard: Shard) -> Iterator[int]:
    """Where the videos begin in a tar file."""
    start = 0
    for member in shard.members:
        start += member.tar_size
        yield start - _padded(member.size)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


# ------------------------------------------------------------------------------------------ one shard


def _write_shard(shard: Shard) -> IwinError | None:
    """Write a tar file and read it again; the error, if there is one."""

    def write(temporary: Path) -> None:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            digests = [_add(tar, member) for member in shard.members]
        _verify(temporary, shard, digests)

    try:
        write_atomically(shard.target, write)
    except IwinError as error:
        return error
    return None


def _add(tar: tarfile.TarFile, member: Member) -> str:
    """Add a sample's members; the digest of its video."""
    for name, content in member.notes():
        tar.addfile(_header(name, len(content)), io.BytesIO(content))
    try:
        with Path(member.source).open("rb") as file:
            if os.fstat(file.fileno()).st_size != member.size:
                raise DataError(f"{member.source}: was changed while it was packed; run the command again")
            source = _Hashing(file)
            tar.addfile(_header(member.name, member.size), source)
    except FileNotFoundError:
        raise DataError(f"{member.source}: was taken away while it was packed; run the command again") from None
    except PermissionError as error:
        raise unreadable(member.source, error) from None
    return source.digest.hexdigest()


def _header(name: str, size: int) -> tarfile.TarInfo:
    """The same for everyone who packs the same file: no owner, no time."""
    header = tarfile.TarInfo(name)
    header.size = size
    return header


class _Hashing(io.RawIOBase):
    """A file that notes what is read from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.blake2b(digest_size=16)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        report_progress()
        return data


def _verify(path: Path, shard: Shard, digests: Sequence[str]) -> None:
    """Read a tar file as WebDataset readers do, member by member, and compare it with what was to be written."""
    expected = [
        (name, None if place is None else (*place, digest))
        for member, offset, digest in zip(shard.members, _offsets(shard), digests, strict=True)
        for name, place in [*((name, None) for name, _ in member.notes()), (member.name, (offset, member.size))]
    ]
    found = []
    with tarfile.open(path, "r:") as tar:
        for header in tar:
            is_note = header.name.endswith((".cls", ".json"))
            found.append((header.name, None if is_note else (header.offset_data, header.size, _digest_in(tar, header))))
    if found != expected:
        raise IwinError(f"{shard.target}: does not read as it was written; is the disk failing?")


def _digest_in(tar: tarfile.TarFile, header: tarfile.TarInfo) -> str:
    file = tar.extractfile(header)
    assert file is not None
    digest = hashlib.blake2b(digest_size=16)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        report_progress()
    return digest.hexdigest()
