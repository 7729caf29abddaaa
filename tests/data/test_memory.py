"""Reading many videos, good and bad, keeps no memory."""

import gc
import sys
from pathlib import Path

import pytest

from iwin.data.annotations import Sample
from iwin.data.datasets import ClipReader, Item, Key
from iwin.data.sampling import FrameSampler
from iwin.transforms.geometry import Compose, RandomResizedCrop, Resize
from tests.videos import numbered_frames, write_video

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc"),
]


def private_mib() -> float:
    """Memory of this process alone."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def test_memory_stays_flat_over_two_thousand_videos(tmp_path: Path) -> None:
    frames = numbered_frames(20)
    paths = [
        write_video(tmp_path / "a.mp4", frames),
        write_video(tmp_path / "b.avi", frames, codec="mpeg4"),
        write_video(tmp_path / "c.webm", frames, codec="libvpx-vp9"),
        write_video(tmp_path / "d.mkv", frames, codec="libx264", bframes=2, audio=False),
    ]
    content = paths[0].read_bytes()
    for number, damaged in enumerate((content[:500], content[: len(content) * 2 // 3], b"", b"no video")):
        paths.append(tmp_path / f"bad {number}.mp4")
        paths[-1].write_bytes(damaged)
    reader = ClipReader(
        FrameSampler(clip_len=4, frame_interval=2), Compose((RandomResizedCrop(), Resize(size=(32, 32))))
    )
    samples = [Sample(str(path), (0,)) for path in paths]

    def read(rounds: range) -> int:
        return sum(
            isinstance(reader((Key(number, place), sample)), Item)
            for number in rounds
            for place, sample in enumerate(samples)
        )

    assert read(range(50)) >= 4 * 50
    before = private_mib()
    read(range(50, 300))
    assert private_mib() - before < 4, "MiB for 2000 videos"
