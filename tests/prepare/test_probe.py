"""What is found out about one video."""

import hashlib
import re
import struct
import tarfile
from itertools import product
from pathlib import Path

import av.logging
import pytest

from iwin.data.annotations import FrameFolder, Sample, ShardMember
from iwin.prepare.probe import Probe, VideoFacts, probe
from tests.prepare.files import BAD, write_audio, write_clip, write_hole, write_in_part
from tests.users import public_folder, refused
from tests.videos import numbered_frames, remux, write_video


def look(path: Path, **options: object) -> dict[str, object]:
    return probe(Probe(Sample(str(path), (0,)), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", ["open", "places", "all"])
def test_the_facts_of_a_good_file(tmp_path: Path, depth: str) -> None:
    path = write_video(tmp_path / "a.mkv", numbered_frames(40), gop=10, bframes=2, fps=20, audio=True)
    found = look(path, depth=depth, digest=True)
    assert found == {
        "container": "matroska,webm",
        "codec": "h264",
        "height": 64,
        "width": 96,
        "num_frames": 40,
        "duration": pytest.approx(2.0),
        "fps": pytest.approx(20.0),
        "keyframe_interval": 10.0,
        "digest": hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(),
    }


def test_the_size_is_the_displayed_one(tmp_path: Path) -> None:
    found = look(write_video(tmp_path / "a.mp4", numbered_frames(3), rotation=90))
    assert (found["height"], found["width"]) == (96, 64)


@pytest.mark.parametrize("problem", ["cut off", "undecodable", "unreadable"])
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, problem: str) -> None:
    path = BAD[problem](tmp_path / "bad.mp4")
    found = look(path)
    assert found["problem"] == problem
    assert str(found["reason"]).startswith(f"{path}: ")


@pytest.mark.parametrize(("suffix", "count"), [(".avi", 80), *product((".mkv", ".webm", ".flv", ".mov"), (20, 80))])
def test_downloads_that_broke_off_are_known_by_their_header(tmp_path: Path, suffix: str, count: int) -> None:
    codec = {".webm": "libvpx-vp9", ".flv": "flv1"}.get(suffix, "mpeg4")
    moov_first = {"movflags": "faststart"} if suffix == ".mov" else None
    path = write_video(
        tmp_path / f"a{suffix}",
        numbered_frames(count),
        codec=codec,
        audio=suffix == ".mkv",
        container_options=moov_first,
    )
    assert "problem" not in look(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert look(path)["problem"] == "cut off"


def test_an_avi_file_whose_picture_starts_behind_the_sound_is_whole(tmp_path: Path) -> None:
    assert "problem" not in look(write_video(tmp_path / "a.avi", numbered_frames(12), codec="mpeg4", audio=True))


def test_a_song_is_no_video(tmp_path: Path) -> None:
    found = look(write_audio(tmp_path / "song.mp4"))
    assert found["problem"] == "unreadable"
    assert "holds no video" in str(found["reason"])


def test_damage_between_the_three_places_needs_every_frame(tmp_path: Path) -> None:
    good = write_video(tmp_path / "a.mp4", numbered_frames(80), gop=10, bframes=0)
    path = remux(good, tmp_path / "b.mp4", lambda number, packet: [bytes(packet)[: 4 if number == 15 else None]])
    assert look(path, depth="places").get("problem") is None
    assert look(path, depth="all")["problem"] == "undecodable"


def test_a_picture_that_decodes_in_part_is_found(tmp_path: Path) -> None:
    path = write_in_part(tmp_path / "a.mp4")
    assert "problem" not in look(path, depth="open")
    for depth in ("places", "all"):  # frame 19, the middle one, leans on frame 15
        found = look(path, depth=depth)
        assert found["problem"] == "undecodable"
        assert "frame 15 cannot be decoded (parts of its data are damaged or missing)" in str(found["reason"])


def test_a_hole_in_the_middle_of_a_matroska_file_is_found(tmp_path: Path) -> None:
    path = write_hole(tmp_path / "a.webm")
    for _ in range(2):  # FFmpeg's complaint is heard again, though it is the same
        found = look(path, depth="open")
        assert found["problem"] == "hole"
        assert re.search(
            r"a\.webm: is damaged after \d\.\d seconds, where \d\.\d seconds are lost", str(found["reason"])
        )
    assert av.logging.get_level() is None


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi"])
def test_long_still_pictures_are_no_hole(tmp_path: Path, suffix: str) -> None:
    times = [40 * t + 5000 * (t > 10) + 9000 * (t > 30) for t in range(40)]
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    path = write_video(tmp_path / f"a{suffix}", numbered_frames(40), codec=codec, bframes=0, pts=times)
    assert "problem" not in look(path, depth="all")


def test_a_joint_in_a_transport_stream_is_no_damage(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{i}.ts", numbered_frames(20, first=20 * i), bframes=2) for i in range(2)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert "problem" not in look(path, depth="all")


def test_whole_groups_of_pictures_before_an_edit_list_are_not_lacking(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(40), bframes=0)
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12  # version and flags, entry count; then duration, media time
    data[entry : entry + 8] = struct.pack(">ii", 600, 25 * 512)  # 15 frames of 40 ms; 512 ticks a frame
    for box, place in ((b"mvhd", 20), (b"tkhd", 24)):
        data[data.index(box) + place : data.index(box) + place + 4] = struct.pack(">i", 600)
    path.write_bytes(data)
    found = look(path, depth="all")
    assert (found["num_frames"], found.get("problem")) == (15, None)


def test_what_the_file_system_knows(tmp_path: Path) -> None:
    good = VideoFacts.of_sample(Sample(str(write_clip(tmp_path / "a.mp4")), (0,)))
    assert (good.problem, good.size) == (None, (tmp_path / "a.mp4").stat().st_size)
    assert VideoFacts.of_sample(Sample(str(tmp_path / "no.mp4"), (0,))).problem == "missing"
    assert VideoFacts.of_sample(Sample(str(BAD["empty"](tmp_path / "e.mp4")), (0,))).problem == "empty"
    assert VideoFacts.of_sample(Sample(str(tmp_path), (0,))).problem == "unreadable"
    assert VideoFacts.of_sample(Sample("s3://bucket/a.mp4", (0,))).problem is None


def test_a_file_that_may_not_be_read_says_so() -> None:
    with public_folder() as folder:
        sample = Sample(str(write_clip(folder / "closed" / "a.mp4")), (0,))
        Path(sample.path).chmod(0)
        with refused():
            found = probe(Probe(sample, digest=True))
        assert found["problem"] == "unreadable"
        assert "see to its permissions" in found["reason"]
        (folder / "closed").chmod(0)
        with refused():
            facts = VideoFacts.of_sample(sample)
        assert facts.problem == "unreadable"
        assert "see to its permissions" in str(facts.reason)
        (folder / "closed").chmod(0o755)


def test_videos_in_shards_and_folders_of_frames_are_looked_into(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(clip, "a.mp4")
    with tarfile.open(tmp_path / "a.tar") as tar:
        offset = tar.getmember("a.mp4").offset_data
    member = ShardMember(str(tmp_path / "a.tar"), offset, clip.stat().st_size)
    sample = Sample(str(tmp_path / "a.tar" / "a.mp4"), (0,), member)
    assert probe(Probe(sample, digest=True)) == look(clip, digest=True)
    assert VideoFacts.of_sample(sample).size == clip.stat().st_size
    found = probe(Probe(Sample(str(tmp_path / "none"), (0,), FrameFolder(3))))
    assert found["problem"] == "unreadable"
