"""Decoding does no more work than is needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from iwin.data import pyav
from iwin.data.decode import open_video
from tests.data.decoding import COUNT, count_calls, index_of, numbers
from tests.videos import (
    decode_all,
    numbered_frames,
    write_video,
)

pytestmark = pytest.mark.usefixtures("eager_seeks")


class Work:
    """Counts packets that are decoded and pictures that are converted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded = self.converted = 0
        feed, convert = pyav.PyAVReader._feed, pyav.PyAVReader._convert

        def counting_feed(reader: pyav.PyAVReader, packet: Any) -> Any:
            self.decoded += packet is not None
            return feed(reader, packet)

        def counting_convert(reader: pyav.PyAVReader, picture: Any, number: int, out: Any) -> None:
            self.converted += 1
            convert(reader, picture, number, out)

        monkeypatch.setattr(pyav.PyAVReader, "_feed", counting_feed)
        monkeypatch.setattr(pyav.PyAVReader, "_convert", counting_convert)


def test_only_what_is_wanted_is_decoded_and_converted(videos: Callable[[str], Path], monkeypatch: Any) -> None:
    with open_video(videos("h264_bframes.mkv")) as video:  # keyframes at 0, 12, 24, 36
        work = Work(monkeypatch)
        video.get_frames([37, 1, 37])
    assert work.converted == 2
    assert work.decoded <= 12  # two runs of two frames, and the look-ahead that reordering takes


def test_reading_on_decodes_nothing_twice(videos: Callable[[str], Path], monkeypatch: Any) -> None:
    path = videos("h264_long_gop.mp4")
    with open_video(path) as video:
        work = Work(monkeypatch)
        windows = [video.get_frames(range(start, start + 10, 3)) for start in range(0, 40, 10)]
    assert work.decoded == COUNT
    reference = decode_all(path)
    assert all(torch.equal(w, reference[10 * i : 10 * i + 10 : 3]) for i, w in enumerate(windows))


def test_near_frames_are_read_without_a_seek(videos: Callable[[str], Path], monkeypatch: Any) -> None:
    monkeypatch.setattr(pyav, "_SEEK_GAIN", 12)
    jumps: list[None] = []
    monkeypatch.setattr(pyav.PyAVReader, "_jump", count_calls(jumps, pyav.PyAVReader._jump))
    with open_video(videos("mjpeg.avi")) as video:
        video.get_frames(range(0, 40, 8))
    assert len(jumps) == 1


def test_intervals_without_a_wanted_frame_are_passed_over(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(pyav, "_SEEK_GAIN", 12)
    path = write_video(tmp_path / "intra.mp4", numbered_frames(COUNT), gop=1)
    with open_video(path) as video:
        work = Work(monkeypatch)
        frames = video.get_frames(range(1, 40, 4))
        assert work.decoded == 10
        assert torch.equal(frames, decode_all(path)[1:40:4])
        assert torch.equal(video.get_frames([2, 6, 5]), decode_all(path)[[2, 6, 5]])


def test_unreferenced_pictures_are_skipped_and_can_still_be_had(videos: Callable[[str], Path]) -> None:
    path = videos("h264_bframes.mkv")
    reference = decode_all(path)
    with open_video(path) as video:
        assert torch.equal(video.get_frames([0, 11]), reference[[0, 11]])
        skipped = sorted(video._reader._skipped)  # type: ignore[attr-defined]
        assert len(skipped) >= 3
        assert torch.equal(video.get_frames(skipped), reference[skipped])


def test_a_read_that_broke_off_leaves_nothing_skipped(videos: Callable[[str], Path], monkeypatch: Any) -> None:
    path = videos("h264_bframes.mkv")
    with open_video(path) as video:
        for stop in range(1, 10):
            with monkeypatch.context() as patch:
                patch.setattr(pyav.PyAVReader, "_convert", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    video.get_frames([stop, 11])
            assert torch.equal(video.get_frames(range(stop + 1, 11)), decode_all(path)[stop + 1 : 11])


def test_counting_skips_nothing(videos: Callable[[str], Path]) -> None:
    """What happens when pictures do not come as foretold, even after the seeking has stopped."""
    path = videos("h264_bframes.mkv")
    with open_video(path) as video:
        reader: Any = video._reader
        video.get_frames([0, 39])
        reader._distrust()
        reader._distrust()
        assert index_of(video).times is None
        assert numbers(video) == list(range(COUNT))


def test_interlaced_h264_is_counted_by_decoding(videos: Callable[[str], Path], monkeypatch: Any) -> None:
    """Its fields may come in packets of their own, though not from the encoder at hand."""
    work = Work(monkeypatch)
    with open_video(videos("h264_interlaced.mp4")):
        assert work.decoded >= COUNT
