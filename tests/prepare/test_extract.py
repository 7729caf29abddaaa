"""Folders of pictures."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from iwin.data.annotations import FrameFolder, Sample
from iwin.data.decode import open_sample, open_video
from iwin.errors import DataError, IwinError, VideoError
from iwin.prepare.convert import Task
from iwin.prepare.extract import Pictures, check_template, is_whole, make_folder
from tests.prepare.files import BAD, write_hole, write_in_part
from tests.videos import numbered_frames, read_number, write_video


def task(source: Path, target: Path) -> Task:
    return Task(Sample(str(source), (0,)), target.name, target)


def test_every_frame_becomes_a_picture(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered_frames(40), rotation=90)
    facts = make_folder(task(source, tmp_path / "a"), pictures=Pictures())
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [f"img_{number:05}.jpg" for number in range(1, 41)]
    assert facts == {"num_frames": 40, "num_bytes": sum(path.stat().st_size for path in (tmp_path / "a").iterdir())}
    assert is_whole(tmp_path / "a", facts)
    with open_sample(Sample(str(tmp_path / "a"), (0,), FrameFolder(40))) as folder, open_video(source) as video:
        assert (folder.height, folder.width) == (96, 64)
        pictures, frames = folder.get_frames(range(40)), video.get_frames(range(40))
    assert (pictures.float() - frames.float()).abs().mean() < 3
    (tmp_path / "a" / names[3]).unlink()
    assert not is_whole(tmp_path / "a", facts)


def test_names_quality_and_size_can_be_chosen(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered_frames(5, height=128, width=192))
    best = make_folder(task(source, tmp_path / "best"), pictures=Pictures(quality=95))
    pictures = Pictures("{:03}.jpg", 0, 30, 64)
    small = make_folder(task(source, tmp_path / "small"), pictures=pictures)
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == [f"{n:03}.jpg" for n in range(5)]
    assert small["num_bytes"] < best["num_bytes"] / 2
    with Image.open(tmp_path / "small" / "004.jpg") as picture:
        assert picture.size == (96, 64)
    stored = FrameFolder(5, first=0, template="{:03}.jpg")
    with open_sample(Sample(str(tmp_path / "small"), (0,), stored)) as folder:
        assert [read_number(frame) for frame in folder.get_frames(range(5))] == list(range(5))


def test_smaller_videos_keep_their_size() -> None:
    assert Pictures(short_side=64).size_of(48, 96) == (48, 96)
    assert Pictures(short_side=64).size_of(128, 200) == (64, 100)


def test_an_older_folder_is_replaced(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered_frames(3))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "img_00009.jpg").touch()
    assert is_whole(tmp_path / "a", make_folder(task(source, tmp_path / "a"), pictures=Pictures()))


@pytest.mark.parametrize("write", [*BAD.values(), write_in_part, write_hole])
def test_of_a_damaged_video_nothing_is_left(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    source = write(tmp_path / "bad.webm" if write is write_hole else tmp_path / "bad.mp4")
    with pytest.raises(VideoError, match=r"bad\.(mp4|webm): "):
        make_folder(task(source, tmp_path / "out" / "bad"), pictures=Pictures())
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("template", ["img.jpg", "{:05}.png", "a/{}.jpg", "{} {}.jpg", "{x}.jpg", "{:q}.jpg"])
def test_templates_that_give_no_names_are_refused(template: str) -> None:
    with pytest.raises(DataError, match="is not of the form"):
        check_template(template)


def test_a_folder_of_anything_else_is_left_alone(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", numbered_frames(3))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(IwinError, match="holds other files than frames"):
        make_folder(task(source, tmp_path / "a"), pictures=Pictures())
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["notes.txt"]
