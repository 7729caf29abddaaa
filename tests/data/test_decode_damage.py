"""Files that are damaged, and files that are no video."""

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from iwin.data.decode import open_video
from iwin.errors import VideoError
from tests.data.decoding import (
    COUNT,
    numbers,
)
from tests.prepare.files import write_in_part
from tests.users import public_folder, refused
from tests.videos import (
    numbered_frames,
    read_number,
    remux,
    write_audio,
    write_video,
)

pytestmark = pytest.mark.usefixtures("eager_seeks")


# Damaged files.


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Packets 20 and 21 are nothing but zeros."""
    return remux(
        write_video(tmp_path / "good.mkv", numbered_frames(COUNT), bframes=0),
        tmp_path / "damaged.mkv",
        lambda number, packet: [bytes(packet.size) if number in (20, 21) else packet],
    )


def test_frames_around_a_damage_keep_their_numbers(damaged: Path) -> None:
    with open_video(damaged) as video:
        assert video.num_frames == COUNT
        for wanted in ([0, 1], [39], [19], [30, 32], [5, 38]):
            assert [read_number(frame) for frame in video.get_frames(wanted)] == wanted
        with pytest.raises(VideoError, match=r"damaged\.mkv: frame 20 cannot be decoded \(Invalid data.*re-encode"):
            video.get_frames([19, 20])
        for wanted in ([0, 1], [39], [19], [30, 32], [5, 38]):
            assert [read_number(frame) for frame in video.get_frames(wanted)] == wanted


def test_strict_reading_refuses_what_leans_on_a_damage(damaged: Path) -> None:
    """Nothing is decoded on the way to the keyframes before and behind it."""
    with open_video(damaged, strict=True) as video:
        assert [read_number(frame) for frame in video.get_frames([0, 19, 39])] == [0, 19, 39]
        with pytest.raises(VideoError, match=r"damaged\.mkv: frame 20 cannot be decoded \(Invalid data"):
            video.get_frames([22])


def test_pictures_that_decode_in_part_are_known_to_strict_reading_alone(tmp_path: Path) -> None:
    path = write_in_part(tmp_path / "part.mp4", number=15)
    with open_video(path) as video:
        assert video.get_frames([15, 16]).shape == (2, 64, 96, 3)
    with open_video(path, strict=True) as video:
        assert len(video.get_frames([0, 14, 24])) == 3
        for wanted in (15, 16):  # the second leans on the first
            with pytest.raises(VideoError, match=r"frame 15 cannot be decoded \(parts of its data are damaged"):
                video.get_frames([wanted])


def test_only_pyav_tells_damage() -> None:
    with pytest.raises(VideoError, match=r"only PyAV tells damaged pictures; set decoder='pyav' or leave strict out"):
        open_video(__file__, decoder="torchcodec", strict=True)


def test_flipped_bits_neither_crash_nor_print(videos: Callable[[str], Path], tmp_path: Path, capfd: Any) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped.mp4"
    for name in ("h264_bframes.mp4", "h264_bframes.ts", "mpeg4.avi", "vp9.webm", "gif.gif"):
        good = np.frombuffer(videos(name).read_bytes(), np.uint8)
        for _ in range(15):
            data = good.copy()
            data[rng.integers(len(data) // 10, len(data), 5)] = rng.integers(0, 256, 5)
            path.write_bytes(data.tobytes())
            try:
                with open_video(path) as video:
                    for index in (video.num_frames - 1, 0, video.num_frames // 2):
                        assert video.get_frames([min(index, video.num_frames - 1)]).shape[1:] == (
                            video.height,
                            video.width,
                            3,
                        )
            except VideoError:
                pass
    assert capfd.readouterr().err == ""


def test_a_truncated_file_gives_what_is_left(tmp_path: Path) -> None:
    """The header still promises 40 frames."""
    options = {"movflags": "faststart"}
    whole = write_video(tmp_path / "whole.mp4", numbered_frames(COUNT), bframes=0, container_options=options)
    path = tmp_path / "truncated.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == COUNT
    with open_video(path) as video:
        count = video.num_frames
        assert 5 < count < COUNT
        assert [read_number(frame) for frame in video.get_frames(range(count - 1))] == list(range(count - 1))
        with pytest.raises(VideoError, match=rf"there is no frame {count}; ask for frames from 0 to {count - 1}"):
            video.get_frames([count])


@pytest.mark.parametrize("bad", [-1, COUNT])
def test_a_frame_outside_the_video(bad: int, videos: Callable[[str], Path]) -> None:
    with (
        open_video(videos("h264.mp4")) as video,
        pytest.raises(VideoError, match=rf"there is no frame {bad}; ask for frames from 0 to 39"),
    ):
        video.get_frames([0, bad])


# What is no video.


def _bad_files(folder: Path) -> Iterator[tuple[Path, str]]:
    (folder / "empty.mp4").touch()
    yield folder / "empty.mp4", "the file is empty"
    (folder / "text.mp4").write_text("not a video\n" * 100)
    yield folder / "text.mp4", "not a video that can be read"
    (folder / "noise.avi").write_bytes(np.random.default_rng(0).bytes(5000))
    yield folder / "noise.avi", "not a video that can be read"
    whole = write_video(folder / "whole.mp4", numbered_frames(10))
    (folder / "half.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    yield folder / "half.mp4", "not a video that can be read"
    yield write_audio(folder / "sound.mp4"), "holds no video"
    yield remux(whole, folder / "dead.mkv", lambda _, packet: [bytes(packet.size)]), "no frame can be decoded"
    yield folder / "missing.mp4", "no such file"
    yield folder, "a folder"
    os.mkfifo(folder / "pipe.mp4")
    yield folder / "pipe.mp4", "a pipe or a device"


@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "mpeg4_bframes.avi", "h264_bframes.ts", "gif.gif"])
def test_a_wrong_ending_changes_nothing(name: str, videos: Callable[[str], Path], tmp_path: Path) -> None:
    for ending in (".mp4", ".avi", ".mkv", ""):
        path = tmp_path / f"clip{ending}"
        path.write_bytes(videos(name).read_bytes())
        with open_video(path) as video:
            assert numbers(video) == list(range(COUNT))


def test_what_is_no_video_is_refused_in_one_sentence_and_closed(tmp_path: Path) -> None:
    for path, reason in _bad_files(tmp_path):
        open_files = len(list(Path("/dev/fd").iterdir()))
        with pytest.raises(VideoError) as caught:
            open_video(path)
        assert str(caught.value).startswith(f"{path}: "), path
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(list(Path("/dev/fd").iterdir())) == open_files, path


def test_a_video_that_may_not_be_read_is_not_to_be_downloaded_again() -> None:
    with public_folder() as folder:
        closed = folder / "closed"
        closed.mkdir()
        for path in (folder / "a.mp4", closed / "a.mp4"):
            write_video(path, numbered_frames(10))
        (folder / "a.mp4").chmod(0)
        closed.chmod(0)
        for path in (folder / "a.mp4", closed / "a.mp4"):
            with refused(), pytest.raises(VideoError) as caught:
                open_video(path)
            says = f"{path}: cannot be read (Permission denied); see to its permissions, or take it off the list"
            assert str(caught.value) == says
        closed.chmod(0o755)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(numbered_frames(1, width=64)[0], format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        container.mux(cover.encode(frame))
        container.mux(cover.encode(None))
    with pytest.raises(VideoError, match="holds no video"):
        open_video(path)


def test_a_title_that_is_no_utf8_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "title.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "caf__"
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frames(1)[0], format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"caf__", b"caf\xe9\xff"))
    with open_video(path) as video:
        assert video.num_frames == 1


def test_closing(videos: Callable[[str], Path]) -> None:
    open_files = len(list(Path("/dev/fd").iterdir()))
    video = open_video(videos("h264.mp4"))
    video.get_frames([0])
    video.close()
    video.close()
    assert len(list(Path("/dev/fd").iterdir())) == open_files
    with pytest.raises(VideoError, match="is closed; open it again"):
        video.get_frames([0])


def test_an_unknown_decoder(videos: Callable[[str], Path]) -> None:
    with pytest.raises(VideoError, match="no decoder 'decord'; choose one of: auto, pyav, torchcodec"):
        open_video(videos("h264.mp4"), decoder="decord")  # type: ignore[arg-type]


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", numbered_frames(4))
    (tmp_path / "b.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    with pytest.raises(VideoError, match=r"b\.mp4: a list of other files"):
        open_video(tmp_path / "b.mp4")
