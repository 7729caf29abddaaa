"""What tests of decoding share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from iwin.data import pyav
from tests.data.decoding import COUNT, VIDEOS
from tests.videos import (
    numbered_frames,
    write_video,
)


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the path of a video of a name in VIDEOS, which is made when it is first asked for."""
    folder = tmp_path_factory.mktemp("videos")

    def video(name: str) -> Path:
        path = folder / name
        return path if path.exists() else write_video(path, numbered_frames(COUNT), **VIDEOS[name])

    return video


@pytest.fixture
def eager_seeks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny videos are worth no seek; this makes them worth it."""
    monkeypatch.setattr(pyav, "_SEEK_GAIN", 2)
