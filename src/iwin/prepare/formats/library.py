"""The videos and frame folders that are on disk, and finding the one that a name means."""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from iwin.data.annotations import VIDEO_SUFFIXES, composed
from iwin.errors import DataError
from iwin.prepare.formats.rows import squashed
from iwin.prepare.formats.source import split_named

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})

_FRAME = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)(?P<suffix>\.\w+)")

_FLOW = re.compile(r"(flow|[uvxy])_?[xyuv]?_?", re.IGNORECASE)
"""What the names of optical-flow images begin with; they are no frames."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of a folder.

    Attributes:
        count: how many there are.
        template: their names, in the form of `img_{:05}.jpg`.
        first: the number of the first.
    """

    count: int
    template: str
    first: int


_NO_FRAMES = Frames(0, "", 0)


class Library:
    """All videos and frame folders below a folder; hidden ones are passed over, links are followed.

    Args:
        root: the folder.

    Attributes:
        frames: the frame folders, by their paths relative to the root.
        num_videos: how many videos there are.

    Raises:
        DataError: if a folder cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.frames: dict[str, Frames] = {}
        self.num_videos = 0
        self._videos: dict[str, list[str]] = {}
        self._folders: dict[str, list[str]] = {}
        try:
            self._walk()
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be searched ({error.strerror})") from None
        self._folded = {
            False: _folded(self._videos),
            True: _folded(self._folders),
        }

    def _walk(self) -> None:
        seen: set[tuple[int, int]] = set()
        stack = [(str(self.root), "")]
        while stack:
            path, relative = stack.pop()
            status = os.stat(path)  # noqa: PTH116 — a Path object for each of 10^5 folders costs seconds
            if (status.st_dev, status.st_ino) in seen:  # links may lead in circles
                continue
            seen.add((status.st_dev, status.st_ino))
            images = []
            with os.scandir(path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith((".", "__MACOSX")):
                        continue
                    name = f"{relative}/{entry.name}" if relative else entry.name
                    stem, suffix = posixpath.splitext(entry.name)
                    suffix = suffix.lower()
                    if suffix in IMAGE_SUFFIXES:
                        images.append(entry.name)
                    elif suffix in VIDEO_SUFFIXES and entry.is_file():
                        self._videos.setdefault(composed(stem), []).append(name)
                        self.num_videos += 1
                    elif entry.is_dir():
                        stack.append((entry.path, name))
            frames = _frames(images)
            if frames and relative:
                self.frames[relative] = frames
                self._folders.setdefault(composed(posixpath.basename(relative)), []).append(relative)

    def find(
        self,
        names: Sequence[str],
        *,
        splits: Collection[str] = (),
        frames: bool = False,
        ignore_case: bool = False,
    ) -> list[str]:
        """The paths, relative to the root, that the first name with any means: none, one, or several alike.

        The folders in a name must be those on disk, as far as both go; blanks and punctuation may differ. The ending
        may be another one.

        Args:
            names: what it may be called, the likeliest first.
            splits: its split, in the words that folders may have for it; a bare name does not mean a file in the
                folder of another one.
            frames: look for a frame folder instead of a video.
            ignore_case: whether capitals may differ where nothing agrees in them.
        """
        for name in names:
            table = self._folders if frames else self._videos
            for is_folded in (False, True) if ignore_case else (False,):
                found = self._matches(name, self._folded[frames] if is_folded else table, is_folded, frames)
                if "/" not in name and splits:
                    found = [path for path in found if _split_folders(path) <= set(splits)]
                if found:
                    return _closest(found, name)
        return []

    def in_folder(self, name: str) -> dict[str, str]:
        """The videos below a folder of that name at the root, by their names without ending."""
        return {stem: path for stem, paths in self._videos.items() for path in paths if path.startswith(f"{name}/")}

    def frames_of(self, path: str) -> Frames:
        """The frames of a folder, which may lie outside the root; none of what is no folder."""
        return self.frames[path] if path in self.frames else frames_in(self.root / path)

    def _matches(self, name: str, table: dict[str, list[str]], is_folded: bool, frames: bool) -> list[str]:
        name = _plain(name)
        if name.startswith("/"):
            path, root = Path(name), self.root.absolute()
            found = path.relative_to(root).as_posix() if path.is_relative_to(root) else name
            if self.frames_of(found).count if frames else path.is_file():
                return [found]
            name = name.lstrip("/")
        stem = _stem(posixpath.basename(name))
        own = name.split("/")[:-1]
        return [path for path in table.get(stem.casefold() if is_folded else stem, ()) if _agree(own, path)]


def frames_in(folder: str | Path) -> Frames:
    """The frames that lie in a folder; none of what is no folder."""
    try:
        with os.scandir(folder) as entries:
            return _frames([entry.name for entry in entries]) or _NO_FRAMES
    except (OSError, ValueError):
        return _NO_FRAMES


def _plain(name: str) -> str:
    return posixpath.normpath(name.strip().replace("\\", "/"))


def _stem(name: str) -> str:
    stem, suffix = posixpath.splitext(name)
    return composed(stem if suffix.lower() in VIDEO_SUFFIXES else name)


def _folded(table: dict[str, list[str]]) -> dict[str, list[str]]:
    folded: dict[str, list[str]] = {}
    for stem, paths in table.items():
        folded.setdefault(stem.casefold(), []).extend(paths)
    return folded


def _agree(own: Sequence[str], path: str) -> bool:
    """Whether the folders of a name are those of a path, as far as both go; one of them at least, where it has any."""
    there = path.split("/")[:-1]
    if own and not there:
        return False
    return all(squashed(a) == squashed(b) for a, b in zip(reversed(own), reversed(there), strict=False))


def _split_folders(path: str) -> set[str]:
    """The splits that the folders of a path are named after."""
    return {split for folder in path.split("/")[:-1] if (split := split_named(folder))}


def _closest(paths: list[str], name: str) -> list[str]:
    """Of paths that a name may mean, those that agree best with it."""
    plain = _plain(name)
    own, suffix = plain.split("/")[:-1], posixpath.splitext(plain)[1]

    def rank(path: str) -> tuple[bool, bool, bool]:
        folders = path.split("/")[:-1]
        same = [a == b for a, b in zip(reversed(own), reversed(folders), strict=False)]
        return path == plain, all(same), path.endswith(suffix)

    best = max(map(rank, paths))
    return [path for path in paths if rank(path) == best]


def _frames(images: Sequence[str]) -> Frames | None:
    """The frames among the images of a folder: the largest row of numbered names that is no optical flow."""
    rows: dict[tuple[str, str], list[str]] = {}
    for image in images:
        if (match := _FRAME.fullmatch(image)) and not (match["prefix"] and _FLOW.fullmatch(match["prefix"])):
            rows.setdefault((match["prefix"], match["suffix"]), []).append(match["number"])
    if not rows:
        return None
    (prefix, suffix), numbers = max(rows.items(), key=lambda row: len(row[1]))
    width = Counter(len(number) for number in numbers).most_common(1)[0][0]
    padded = any(number.startswith("0") and len(number) > 1 for number in numbers)
    field = f"{{:0{width}}}" if padded else "{}"
    return Frames(len(numbers), f"{prefix}{field}{suffix}", min(map(int, numbers)))


def class_of(path: str) -> str:
    """The class folder of a path: its first component."""
    return PurePosixPath(path).parts[0]
