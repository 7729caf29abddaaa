"""Equal data have equal fingerprints, and others have not."""

from pathlib import Path

import pytest

from iwin.data.annotations import Annotations, FrameFolder, Sample, ShardMember, read_class_folders, read_list
from iwin.data.fingerprint import fingerprint, read_fingerprint


def write(root: Path, **sizes: int) -> Annotations:
    """Files a.mp4 … of the sizes given, in class folders by turns."""
    for number, (name, size) in enumerate(sizes.items()):
        path = root / f"class {number % 2}" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    return read_class_folders(root)


def of(*samples: Sample) -> str:
    return fingerprint(Annotations(samples, None, "list.txt"))


def test_it_is_short_and_the_same_wherever_the_data_lie(tmp_path: Path) -> None:
    first, second = write(tmp_path / "here", a=1, b=2, c=3), write(tmp_path / "far" / "away", a=1, b=2, c=3)
    assert fingerprint(first) == fingerprint(second)
    assert len(fingerprint(first)) == 12
    assert int(fingerprint(first), 16) >= 0


def test_lists_and_folders_of_the_same_videos_are_equal_in_any_order(tmp_path: Path) -> None:
    folders = write(tmp_path / "clips", a=1, b=2, c=3)
    lines = [f"{Path(sample.path).relative_to(tmp_path)} {sample.label}\n" for sample in folders.samples]
    (tmp_path / "list.txt").write_text("".join(reversed(lines)))
    assert fingerprint(read_list(tmp_path / "list.txt", root=tmp_path)) == fingerprint(folders)


@pytest.mark.parametrize("change", ["size", "label", "name", "lost", "missing"])
def test_every_difference_shows(tmp_path: Path, change: str) -> None:
    before = write(tmp_path, a=1, b=2, c=3)
    first, *others = before.samples
    old = fingerprint(before)
    if change == "size":
        Path(first.path).write_bytes(bytes(9))
        new = fingerprint(before)
    elif change == "missing":
        Path(first.path).unlink()
        new = fingerprint(before)
    elif change == "label":
        new = of(Sample(first.path, (7,)), *others)
    elif change == "name":
        Path(first.path).rename(tmp_path / "class 0" / "z.mp4")
        new = of(Sample(str(tmp_path / "class 0" / "z.mp4"), first.labels), *others)
    else:
        new = of(*others)
    assert new != old


def test_the_parts_tell_what_differs(tmp_path: Path) -> None:
    annotations = write(tmp_path, a=1, b=2)
    before = read_fingerprint(annotations)
    Path(annotations.samples[0].path).unlink()
    after = read_fingerprint(annotations)
    assert (before.num_videos, before.num_sized, after.num_sized) == (2, 2, 1)
    assert (after.listed, after.decoder) == (before.listed, before.decoder)
    assert after.sizes != before.sizes
    assert before.decoder.startswith("pyav ")


def test_videos_that_are_no_files_have_one_too(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert read_fingerprint(Annotations((Sample("s3://bucket/a.mp4", (0,)),), None, "x")).num_sized == 0
    assert read_fingerprint(Annotations((Sample(str(tmp_path / "folder"), (0,)),), None, "x")).num_sized == 0
    member = Sample("a.tar/0.mp4", (0,), ShardMember("a.tar", 512, 9))
    assert of(member) != of(Sample("a.tar/0.mp4", (0,), ShardMember("a.tar", 512, 8)))
    frames = Sample(str(tmp_path / "folder"), (0,), FrameFolder(5))
    assert of(frames) != of(Sample(str(tmp_path / "folder"), (0,), FrameFolder(6)))
    assert of(Sample("s3://a/x/1.mp4", (0,)), Sample("s3://a/y/2.mp4", (1,))) == of(
        Sample("gs://b/c/x/1.mp4", (0,)), Sample("gs://b/c/y/2.mp4", (1,))
    )


def test_another_decoder_is_another_fingerprint(tmp_path: Path) -> None:
    annotations = write(tmp_path, a=1)
    assert fingerprint(annotations, decoder="torchcodec") != fingerprint(annotations)
    assert read_fingerprint(annotations, decoder="torchcodec").decoder.startswith("torchcodec ")
