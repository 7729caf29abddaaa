"""What a score was measured on, in twelve letters: two fingerprints of files are equal where the data are.

Copies of a data set differ: videos vanish, are cut anew or re-encoded, and scores differ with them. A fingerprint rests
on

1. the list: each sample's path and labels, without what all paths begin with and in sorted order, so that neither the
   folder that a copy lies in nor the order of the lines counts; in shards of ours, the path that the video had before;
2. the size of each video: bytes of a file or of a member of a shard, pictures of a frame folder; a file that is not
   there and an address (`s3://…`) have none;
3. the decoder: its name, its version and that of the libavcodec within, since decoders do not all give the same pixels.

The content of the files is not read, which would take hours: equal sizes stand for it. `iwin data check` hashes it.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import av

from iwin.data.annotations import Annotations, FrameFolder, Sample, ShardMember
from iwin.data.decode import DecoderName

_LENGTH = 12


@dataclass(frozen=True)
class Fingerprint:
    """A fingerprint and its parts; `str` gives the whole, 12 hexadecimal digits.

    Attributes:
        listed: of paths and labels, 12 hexadecimal digits.
        sizes: of the same and the videos' sizes, 12 hexadecimal digits.
        decoder: what decodes, such as "pyav 18.1.0, libavcodec 62.28.100".
        num_videos: samples in the list.
        num_sized: samples that have a size.
    """

    listed: str
    sizes: str
    decoder: str
    num_videos: int
    num_sized: int

    def __str__(self) -> str:
        return _digest([self.listed, self.sizes, self.decoder])


def fingerprint(annotations: Annotations, *, decoder: DecoderName = "pyav") -> str:
    """The fingerprint of a split, 12 hexadecimal digits; asks the file system for the size of every file."""
    return str(read_fingerprint(annotations, decoder=decoder))


def read_fingerprint(annotations: Annotations, *, decoder: DecoderName = "pyav") -> Fingerprint:
    """The fingerprint of a split with all that it rests on; asks the file system for the size of every file."""
    paths = [_path(sample).replace(os.sep, "/") for sample in annotations.samples]
    start = len(_common_folder(paths))
    rows = sorted(
        (path[start:], sample.labels, _size(sample)) for path, sample in zip(paths, annotations.samples, strict=True)
    )
    return Fingerprint(
        listed=_digest(f"{path} {labels}" for path, labels, _ in rows),
        sizes=_digest(f"{path} {labels} {size}" for path, labels, size in rows),
        decoder=decoder_name(decoder),
        num_videos=len(rows),
        num_sized=sum(size >= 0 for *_, size in rows),
    )


def decoder_name(decoder: DecoderName) -> str:
    """What decodes, with its versions; "auto" stands for what it chooses on a CPU."""
    if decoder == "torchcodec":
        return f"torchcodec {version('torchcodec')}"
    return f"pyav {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


def _common_folder(paths: Sequence[str]) -> str:
    """The folders that all paths begin with, up to and with the last "/"."""
    folder = 0
    # Of sorted strings, what the first and the last share is shared by all between them.
    for place, (a, b) in enumerate(zip(min(paths), max(paths), strict=False)):
        if a != b:
            break
        if a == "/":
            folder = place + 1
    return paths[0][:folder]


def _path(sample: Sample) -> str:
    """Where a video is, or was before it was packed into a shard."""
    return (isinstance(sample.stored, ShardMember) and sample.stored.made_of) or sample.path


def _size(sample: Sample) -> int:
    """Bytes or pictures of a video; -1 where there is none to ask."""
    if isinstance(sample.stored, FrameFolder):
        return sample.stored.num_frames
    if isinstance(sample.stored, ShardMember):
        return sample.stored.size
    try:
        status = os.stat(sample.path)  # noqa: PTH116 - a Path for each of 240,000 videos takes longer than asking
    except (OSError, ValueError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.blake2b()
    for line in lines:
        digest.update(line.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()[:_LENGTH]
