"""Folders of extracted frames, alone and through a whole run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from iwin.data.annotations import FrameFolder, Sample
from iwin.data.decode import Box, Framing, Video, open_sample
from iwin.errors import VideoError
from tests.commands import SMALL, iwin
from tests.videos import numbered_frames, read_number


def write_frames(folder: Path, frames: np.ndarray[Any, Any], *, first: int = 1, name: str = "img_{:05}.jpg") -> Path:
    folder.mkdir(parents=True)
    for number, picture in enumerate(frames, first):
        Image.fromarray(picture).save(folder / name.format(number), quality=95)
    return folder


def opened(folder: Path, stored: FrameFolder) -> Video:
    return open_sample(Sample(str(folder), (0,), stored))


def test_frames_are_the_pictures(tmp_path: Path) -> None:
    frames = numbered_frames(8)
    folder = write_frames(tmp_path / "a", frames, name="{:03}.png")
    with opened(folder, FrameFolder(6, first=3, template="{:03}.png")) as video:
        assert (video.num_frames, video.height, video.width) == (6, 64, 96)
        assert torch.equal(video.get_frames([5, 0, 5]), torch.from_numpy(frames[[7, 2, 7]]))
        box = video.get_frames([1], Framing(Box(10, 20, 30, 40)))
        assert torch.equal(box, torch.from_numpy(frames[[3], 10:40, 20:60]))
    folder = write_frames(tmp_path / "b", frames)
    with opened(folder, FrameFolder(8)) as video:
        assert [read_number(frame) for frame in video.get_frames(range(8))] == list(range(8))


def test_frames_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", numbered_frames(5))
    with pytest.raises(VideoError, match=r"a/img_00006\.jpg: the frame is missing, though the list gives 6 frames"):
        opened(folder, FrameFolder(6))
    with pytest.raises(VideoError, match="the list gives it no frames"):
        opened(folder, FrameFolder(0))
    with pytest.raises(VideoError, match="no such folder of frames"):
        opened(tmp_path / "nowhere", FrameFolder(5))
    Image.new("RGB", (10, 10)).save(folder / "img_00003.jpg")
    with opened(folder, FrameFolder(5)) as video:
        with pytest.raises(VideoError, match=r"img_00003\.jpg: is 10 x 10, the first frame 64 x 96"):
            video.get_frames([1, 2])
        with pytest.raises(VideoError, match="only PyAV scales while it decodes"):
            video.get_frames([1], Framing(size=(32, 32)))
    (folder / "img_00001.jpg").write_bytes(b"no picture")
    with pytest.raises(VideoError, match=r"img_00001\.jpg: the frame cannot be read \(no picture\)"):
        opened(folder, FrameFolder(5))
    data = (folder / "img_00002.jpg").read_bytes()
    (folder / "img_00001.jpg").write_bytes(data[: len(data) // 2])
    with (
        opened(folder, FrameFolder(5)) as video,
        pytest.raises(VideoError, match=r"img_00001\.jpg: the frame cannot be read \(image file is truncated"),
    ):
        video.get_frames([0])


def test_a_run_on_frame_folders(tmp_path: Path) -> None:
    """Trained and tested through a config; one folder lacks a frame."""
    lines = []
    for number in range(6):
        frames = numbered_frames(8, first=20 * number)
        write_frames(tmp_path / "frames" / f"clip {number}", frames, first=10)
        lines.append(f"clip {number} 9 8 {number % 2}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    (tmp_path / "frames" / "clip 5" / "img_00013.jpg").unlink()
    (tmp_path / "config.py").write_text(
        """_base_ = "iwin_nano_demo"
shared = dict(type="RawframeDataset", ann_file="list.txt", data_prefix="frames", with_offset=True)
"""
        + "".join(
            f"""{split}_steps = [
    dict(type="SampleFrames", clip_len=4, frame_interval=2, num_clips=1, test_mode={split != "train"}),
    dict(type="RawFrameDecode"),
    dict(type="Resize", scale=(-1, 64)),
    dict(type="CenterCrop", crop_size=56),
    dict(type="Normalize", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_bgr=False),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="Collect", keys=["imgs", "label"], meta_keys=[]),
    dict(type="ToTensor", keys=["imgs", "label"]),
]
"""
            for split in ("train", "test")
        )
        + """data = dict(
    _delete_=True,
    train=dict(pipeline=train_steps, **shared),
    val=dict(pipeline=test_steps, **shared),
    test=dict(pipeline=test_steps, **shared),
)
"""
    )
    options = ["--cfg-options", *SMALL, "total_epochs=1"]
    trained = iwin("train", "config.py", "--work-dir", "run", *options, cwd=tmp_path)
    assert trained.status == 0, trained.err
    assert "clip 5/img_00013.jpg: the frame is missing" in trained.err
    tested = iwin("test", "config.py", "run/last.safetensors", "--out", "scores.json", *options, cwd=tmp_path)
    assert tested.status == 0, tested.err
    videos = json.loads((tmp_path / "scores.json").read_text())
    assert len(videos) == 6
    assert "clip 5/img_00013.jpg: the frame is missing" in tested.err
