"""The file that names each video of a run that could not be read."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from accelerate.utils import gather_object

from iwin.data.annotations import text_lines
from iwin.data.bad_videos import BadVideo, BadVideos
from iwin.engine.log import RunLog
from iwin.errors import DataError
from iwin.files import json_text, write_atomically

BAD_FILES_NAME = "bad_files.jsonl"
"""The file's name in a work directory."""


@dataclass(frozen=True)
class BadFile:
    """A line of the file.

    Attributes:
        split: "train", "val" or "test": where the video was met first.
        path: the video.
        reason: why it could not be read.
    """

    split: str
    path: str
    reason: str


def read_bad_files(path: Path) -> list[BadFile]:
    """The lines of such a file; none where there is no file.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        lines = text_lines(path.read_text(encoding="utf-8")) if path.exists() else []
        return [BadFile(**json.loads(line)) for line in lines if line]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as a list of bad videos ({error}); take it away") from None


class BadFiles:
    """The bad videos of a run: each is named once, in the log and in a file, whatever process or split meets it.

    Args:
        path: the file, begun anew when bad videos are first told of; None keeps none (processes other than the first).
        log: the run's.
        known: lines of an earlier part of the run, which stay in the file.
    """

    def __init__(self, path: Path | None, log: RunLog, *, known: Iterable[BadFile] = ()) -> None:
        self._path, self._log = path, log
        self._known = {file.path: file for file in known}
        self._is_begun = False

    def known_among(self, paths: Collection[str]) -> list[BadVideo]:
        """Those of an earlier part of the run that are in a split of these paths."""
        listed = set(paths)
        return [BadVideo(file.path, file.reason) for file in self._known.values() if file.path in listed]

    def tell(self, split: str, bad: BadVideos) -> None:
        """Name the videos of a split that all processes together have met since the last call.

        All processes have to call it. Afterwards all of them know of the same bad videos.
        """
        if not self._is_begun:
            self._begin()
        met: list[BadVideo] = gather_object(bad.take_new())
        bad.learn(met)
        for video in met:
            if video.path not in self._known:
                self._known[video.path] = file = BadFile(split, video.path, video.reason)
                self._log.warn(f"bad video: {video.reason}")
                if self._path is not None:
                    self._write(file)

    def complaint(self, bad: BadVideos) -> str:
        """Why there are too many, naming the first of them, and the file with all that were met."""
        is_kept = self._path is not None and self._path.exists()
        return bad.complaint() + (f"\nAll that were met are named in {self._path}" if is_kept else "")

    def _begin(self) -> None:
        self._is_begun = True
        if self._path is not None and (self._known or self._path.exists()):
            text = "".join(_line(file) for file in self._known.values())
            write_atomically(self._path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def _write(self, file: BadFile) -> None:
        assert self._path is not None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as lines:
                lines.write(_line(file))
        except OSError as error:  # no reason to end a run of which other processes go on
            self._log.warn(f"{self._path}: cannot be written ({error.strerror})")


def _line(file: BadFile) -> str:
    return json_text(vars(file)) + "\n"
