"""WebDataset shards: with the index that is written beside them, and without one."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from iwin.build import build_annotations
from iwin.config.schema import SplitSettings
from iwin.data import shards
from iwin.data.annotations import Annotations, ShardMember
from iwin.data.decode import open_sample
from iwin.data.shards import expand_braces, read_shards
from iwin.errors import DataError, VideoError
from tests.commands import SMALL, iwin
from tests.runs import write_class_folders
from tests.servers import file_server, s3_server
from tests.videos import decode_all, numbered_frames, write_video

Members = list[tuple[str, bytes]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    return tmp_path / "cache" / "iwin" / "shards"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [write_video(folder / f"{i}.mp4", numbered_frames(12, first=20 * i)) for i in range(3)]


def write_tar(path: Path, members: Members) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_set(folder: Path, clips: list[Path], *, indexed: bool) -> Path:
    """Two shards: 000000 and 000001 in one, 000002 in the other; labels 2, 0, 1."""
    data = [clip.read_bytes() for clip in clips]
    first = write_tar(
        folder / "shard-000000.tar",
        [("000000.cls", b"2"), ("000000.mp4", data[0]), ("000001.json", b'{"labels": [0]}'), ("000001.mp4", data[1])],
    )
    second = write_tar(folder / "shard-000001.tar", [("000002.mp4", data[2]), ("000002.cls", b"1\n")])
    if indexed:
        index = {"format": "iwin-shards", "version": 1, "classes": ["a", "b", "c"], "shards": []}
        for tar, labels in ((first, [2, 0]), (second, [1])):
            with tarfile.open(tar) as opened:
                videos = [info for info in opened if info.name.endswith(".mp4")]
            samples = [
                {"member": v.name, "path": v.name, "labels": [label], "offset": v.offset_data, "size": v.size}
                for v, label in zip(videos, labels, strict=True)
            ]
            index["shards"].append({"name": tar.name, "num_bytes": tar.stat().st_size, "samples": samples})  # type: ignore[attr-defined]
        (folder / "index.json").write_text(json.dumps(index))
    return folder


def read(place: str | Path, **options: Any) -> Annotations:
    annotations = read_shards(place, **options)
    assert annotations is not None
    return annotations


def assert_all_open(annotations: Annotations, clips: list[Path]) -> None:
    assert [sample.label for sample in annotations.samples] == [2, 0, 1]
    for at in (2, 0, 1):
        with open_sample(annotations.samples[at]) as video:
            assert torch.equal(video.get_frames([11, 0]), decode_all(clips[at])[[11, 0]])


@pytest.mark.parametrize("indexed", [True, False])
def test_samples_are_read_by_their_place(indexed: bool, clips: list[Path], tmp_path: Path, cache: Path) -> None:
    folder = write_set(tmp_path / "set", clips, indexed=indexed)
    annotations = read(folder)
    assert annotations.classes == (("a", "b", "c") if indexed else None)
    assert annotations.samples[2].path == f"{folder}/shard-000001.tar/000002.mp4"
    assert_all_open(annotations, clips)
    assert len(list(cache.glob("*.json"))) == (0 if indexed else 2)
    for place in (folder / "shard-{000000..000001}.tar", folder / "shard-{000000,000001}.tar"):
        assert read(place).samples == annotations.samples
    assert read(folder / "shard-000001.tar").samples == annotations.samples[2:]
    if indexed:
        assert read(folder / "index.json").samples == annotations.samples


def test_a_tar_file_is_looked_through_once(clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_set(tmp_path / "set", clips, indexed=False)
    before = read(folder)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "look_into", lambda *_: pytest.fail("looked into a tar file again"))
        assert read(folder).samples == before.samples
    write_tar(folder / "shard-000001.tar", [("x/7.b.mp4", clips[0].read_bytes()), ("x/7.cls", b"1")])
    assert [Path(sample.path).name for sample in read(folder).samples] == ["000000.mp4", "000001.mp4", "7.b.mp4"]


def test_class_names_become_numbers(clips: list[Path], tmp_path: Path) -> None:
    video = clips[0].read_bytes()
    members = [("a.mp4", video), ("a.cls", b"rise"), ("b.mp4", video), ("b.json", b'{"label": "fall"}')]
    tar = write_tar(tmp_path / "x.tar", members)
    assert read(tar).classes == ("fall", "rise")
    assert [sample.label for sample in read(tar, classes=["rise", "fall"]).samples] == [0, 1]


def test_several_labels(clips: list[Path], tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", [("a.mp4", clips[0].read_bytes()), ("a.json", b'{"labels": [4, 1]}')])
    assert read(tar, multi_label=True).samples[0].labels == (4, 1)
    with pytest.raises(DataError, match=r"a\.mp4 has 2 labels; several labels a video need multi_class=True"):
        read(tar)


def test_shards_that_cannot_be_used_are_refused(clips: list[Path], tmp_path: Path) -> None:
    assert read_shards(tmp_path) is None
    (tmp_path / "odd.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(DataError, match=r"odd\.tar: cannot be read as a tar file of samples"):
        read_shards(tmp_path / "odd.tar")
    with pytest.raises(DataError, match=r"none\.tar: cannot be read \(No such file"):
        read_shards(tmp_path / "none.tar")
    write_tar(tmp_path / "bare.tar", [("a.mp4", clips[0].read_bytes())])
    with pytest.raises(DataError, match=r"bare\.tar/a\.mp4 has no label"):
        read_shards(tmp_path / "bare.tar")
    write_tar(tmp_path / "texts.tar", [("a.cls", b"1")])
    with pytest.raises(DataError, match="the tar files hold no video"):
        read_shards(tmp_path / "texts.tar")
    for text, reason in (
        ('{"format": "iwin-shards", "version": 2}', "an index in the format iwin-shards 2, which this version"),
        ('{"format": "iwin-shards", "version": 1}', r"no index of shards \(KeyError: 'shards'\)"),
        ("{", r"no index of shards \(JSONDecodeError"),
    ):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(DataError, match=reason):
            read_shards(tmp_path / "index.json")


def test_a_shard_that_was_cut_off_is_named(clips: list[Path], tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", clips, indexed=True)
    sample = read(folder).samples[2]
    assert isinstance(sample.stored, ShardMember)
    tar = Path(sample.stored.tar)
    tar.write_bytes(tar.read_bytes()[: sample.stored.offset + 100])
    with pytest.raises(VideoError, match=r"shard-000001\.tar: ends before byte"):
        open_sample(sample)
    tar.unlink()
    with pytest.raises(VideoError, match=r"shard-000001\.tar: no such file"):
        open_sample(sample)


@pytest.mark.parametrize(
    ("order", "cut_in", "left"),
    [(("cls", "mp4"), "c.mp4", "ab"), (("mp4", "cls"), "c.mp4", "ab"), (("mp4", "json"), "c.json", "ab")],
)
def test_what_can_be_read_of_a_tar_file_that_breaks_off_is_used(
    order: tuple[str, str], cut_in: str, left: str, clips: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = {"cls": b"1", "json": b'{"label": 1}', "mp4": clips[0].read_bytes()}
    tar = write_tar(tmp_path / "x.tar", [(f"{name}.{kind}", content[kind]) for name in "abc" for kind in order])
    with tarfile.open(tar) as opened:
        offset = opened.getmember(cut_in).offset_data
    tar.write_bytes(tar.read_bytes()[: offset + 5])
    for _ in range(2):  # what is incomplete is told whenever it is opened
        caplog.clear()
        annotations = read(tar)
        assert [Path(sample.path).stem for sample in annotations.samples] == list(left)
        for sample in annotations.samples:
            with open_sample(sample) as video:
                assert video.num_frames == 12
        (record,) = caplog.records
        assert record.getMessage().startswith(f"{tar}: breaks off after 2 videos (")
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(DataError, match=r"x\.tar: cannot be read as a tar file of samples \(.*\); write it anew"):
        read(tar)


def test_braces() -> None:
    assert expand_braces("a.tar") == ["a.tar"]
    assert expand_braces("{a,b}-{08..10}.tar") == [f"{x}-{n}.tar" for x in "ab" for n in ("08", "09", "10")]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with s3_server(monkeypatch) as file_system:
        yield file_system


def test_shards_on_s3(s3: Any, clips: list[Path], tmp_path: Path) -> None:
    for indexed in (True, False):
        folder = write_set(tmp_path / f"set {indexed}", clips, indexed=indexed)
        s3.put(str(folder), f"bucket/{indexed}", recursive=True)
        annotations = read(f"s3://bucket/{indexed}")
        assert annotations.samples[2].path == f"s3://bucket/{indexed}/shard-000001.tar/000002.mp4"
        assert_all_open(annotations, clips)
        assert read(f"s3://bucket/{indexed}/shard-{{000000..000001}}.tar").samples == annotations.samples


def test_a_server_must_give_parts(clips: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra http")
    write_set(tmp_path / "set", clips, indexed=True)
    with file_server(tmp_path / "set") as server:
        sample = read(server.url).samples[1]
        with pytest.raises(VideoError, match="the server does not give parts of a file, which shards need"):
            open_sample(sample)


def test_a_run_on_shards_and_on_a_table(tmp_path: Path) -> None:
    """Training reads shards, validation a folder with a table; both mean the same classes."""
    root = write_class_folders(tmp_path / "clips")
    videos = sorted(root.rglob("*.mp4"))
    members: Members = []
    for number, path in enumerate(videos):
        members += [(f"{number:06}.cls", path.parent.name.encode()), (f"{number:06}.mp4", path.read_bytes())]
    write_tar(tmp_path / "shards" / "shard-000000.tar", members)
    rows = "".join(f"{path.relative_to(root)},{path.parent.name}\n" for path in videos)
    (root / "metadata.csv").write_text(f"file_name,label\n{rows}")
    options = [*SMALL, "total_epochs=1", "data.train.data_prefix=shards"]
    options += ["data.val.data_prefix=clips"]
    result = iwin("train", "iwin_nano_demo", "--work-dir", "run", "--cfg-options", *options, cwd=tmp_path)
    assert result.status == 0, result.err
    shown = build_annotations(SplitSettings(root=str(tmp_path / "shards")), name="train")
    assert shown.classes == ("class 0", "class 1", "class 2")
    with pytest.raises(DataError, match="the class 'class 2' is not among the 2 classes"):
        build_annotations(SplitSettings(root=str(root)), name="val", classes=["class 0", "class 1"])
