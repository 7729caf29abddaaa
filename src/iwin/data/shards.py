"""Samples packed into tar files, in the layout of WebDataset: members of one base name are one sample.

    000000.cls  000000.json  000000.mp4  000001.cls  …

A sample is read by its place alone: the video's first byte and its size come from the index that `iwin data shard`
writes beside the tar files, or from one that is made of the tar headers on the first opening and kept below
``torch.hub.get_dir()``. So shards are read in any order, like files, and a million videos are a few hundred files.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

from iwin.data.annotations import (
    LABEL_COLUMNS,
    Annotations,
    Sample,
    ShardMember,
    is_video,
    label_samples,
    labels_in,
)
from iwin.data.sources import beside, files_below, is_url, join, look_into, path_in, read_bytes, state_of
from iwin.errors import DataError, IwinError
from iwin.files import save_json

log = logging.getLogger(__name__)

INDEX = "index.json"
FORMAT, VERSION = "iwin-shards", 1

Member = tuple[str, int, int, list[str | int]]
"""Name, first byte, size and labels of a video in a tar file."""


def is_shards(path: str) -> bool:
    """Whether a name is that of an index or of tar files."""
    name = path_in(path).name
    return name.endswith(".json") or re.search(r"\.tar\b", name) is not None


def read_shards(
    location: str | Path, *, classes: Sequence[str] | None = None, multi_label: bool = False, strict: bool = True
) -> Annotations | None:
    """The samples of shards, or None if there are none at this place.

    Args:
        location: a folder with an index or tar files, an index, a tar file, or several as in shard-{000..127}.tar;
            paths or addresses.
        classes: class names by label when they are known already.
        multi_label: whether a sample can have several labels.
        strict: whether unknown classes and samples without a label are refused (see `label_samples`).

    Raises:
        DataError: if an index or a tar file cannot be used.
    """
    place = str(location)
    if path_in(place).suffix == ".json":
        return _read_index(place, read_bytes(place))
    named = expand_braces(place) if is_shards(place) else None
    index = beside(named[0], INDEX) if named else join(place, INDEX)
    try:
        content = read_bytes(index)
    except FileNotFoundError:
        content = b""
    if FORMAT.encode() in content[:4096]:
        return _read_index(index, content, only=named)
    tars = named or _tars_in(place)
    if not tars:
        return None
    members = [(tar, member) for tar in tars for member in _members(tar)]
    entries = [(f"{tar}/{name}", labels, ShardMember(tar, at, size)) for tar, (name, at, size, labels) in members]
    if not entries:
        raise DataError(f"{place}: the tar files hold no video")
    return label_samples(entries, source=place, classes=classes, multi_label=multi_label, strict=strict)


def _tars_in(folder: str) -> list[str]:
    if not is_url(folder):
        return sorted(map(str, Path(folder).glob("*.tar")))
    return [path for parts, path in files_below(folder) if len(parts) == 1 and parts[0].endswith(".tar")]


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern stands for: {000..127} counts, with leading zeros, {a,b} lists."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = [_choices(part) if at % 2 else [part] for at, part in enumerate(parts)]
    return ["".join(names) for names in product(*choices)]


def _choices(braces: str) -> list[str]:
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", braces)
    if ends is None:
        return braces.split(",")
    return [str(number).zfill(len(ends[1])) for number in range(int(ends[1]), int(ends[2]) + 1)]


# ------------------------------------------------------------------------------------------- our index


def _read_index(path: str, content: bytes, *, only: Sequence[str] | None = None) -> Annotations:
    try:
        index = json.loads(content)
        found = index["format"], index["version"]
        if found == (FORMAT, VERSION):
            samples = list(_samples_in(index["shards"], path, only))
            classes = index["classes"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no index of shards ({type(error).__name__}: {error}); write it anew") from None
    if found != (FORMAT, VERSION):
        raise DataError(f"{path}: is an index in the format {found[0]} {found[1]}, which this version cannot read")
    if not samples:
        raise DataError(f"{path}: names no sample of the shards that are asked for")
    return Annotations(tuple(samples), None if classes is None else tuple(classes), path)


def _samples_in(shards: Sequence[dict[str, Any]], index: str, only: Sequence[str] | None) -> Iterator[Sample]:
    for shard in shards:
        tar = beside(index, shard["name"])
        if only is None or tar in only:
            for sample in shard["samples"]:
                stored = ShardMember(tar, sample["offset"], sample["size"], sample.get("path"))
                yield Sample(f"{tar}/{sample['member']}", tuple(sample["labels"]), stored)


# ------------------------------------------------------------------------------------------- tar files without one


def _members(tar: str) -> list[Member]:
    """The videos of a tar file, from the cache where it has not changed since."""
    import torch.hub

    place = tar if is_url(tar) else str(Path(tar).absolute())
    name = hashlib.sha256(os.fsencode(f"{place} {state_of(tar)}")).hexdigest()[:24]
    cached = Path(torch.hub.get_dir()) / "iwin" / "shards" / f"{name}.json"
    try:
        return [(member, at, size, labels) for member, at, size, labels in json.loads(cached.read_bytes())]
    except (OSError, ValueError):
        pass
    members, damage = look_into(tar, partial(_scan, tar))
    if damage is not None:  # not kept, to be told again
        log.warning("%s: breaks off after %d videos (%s); they are used, write it anew", tar, len(members), damage)
        return members
    with contextlib.suppress(IwinError):  # a cache that cannot be written costs the next opening a scan
        save_json(cached, members)
    return members


def _scan(path: str, file: BinaryIO) -> tuple[list[Member], str | None]:
    """The videos of an open tar file, in their order, and what keeps the rest of it from being read."""
    videos: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, list[str | int]] = {}
    damage: str | None = None
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                folder, slash, name = info.name.rpartition("/")
                key = folder + slash + name.partition(".")[0]
                if is_video(name):
                    videos[key] = info
                elif name.endswith((".cls", ".json")) and (member := tar.extractfile(info)):
                    labels[key] = _labels(name, member.read()) or labels.get(key, [])
    except (tarfile.TarError, ValueError) as error:
        end = file.seek(0, os.SEEK_END)
        # Of the sample that it breaks off in, the video can be cut, or the label lacking.
        whole = [(key, info) for key, info in videos.items() if info.offset_data + info.size <= end and key in labels]
        if isinstance(error, ValueError) or not whole:
            raise DataError(f"{path}: cannot be read as a tar file of samples ({error}); write it anew") from None
        damage, videos = str(error), dict(whole)
    members = [(info.name, info.offset_data, info.size, labels.get(key, [])) for key, info in videos.items()]
    return members, damage


def _labels(name: str, content: bytes) -> list[str | int]:
    if name.endswith(".cls"):
        return labels_in(content.decode().strip())
    fields: Any = json.loads(content)
    if not isinstance(fields, dict):
        return labels_in(fields)
    return next((labels_in(fields[column]) for column in (*LABEL_COLUMNS, "cls") if column in fields), [])
