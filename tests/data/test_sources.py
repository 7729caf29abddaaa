"""Videos, lists and folders behind addresses: memory, HTTP and S3, with real servers."""

import io
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec import filesystem

from iwin.data import sources
from iwin.data.annotations import FrameFolder, Sample, read_class_folders, read_list
from iwin.data.decode import open_sample, open_video
from iwin.data.frames import FrameFolderReader
from iwin.data.layouts import read_annotation_folder
from iwin.data.sources import beside, files_below, is_url, join, open_bytes, path_in
from iwin.data.video_folder import find_table, read_video_folder
from iwin.errors import DataError, VideoError
from tests.runs import write_class_folders
from tests.servers import FileServer, file_server, s3_server
from tests.videos import decode_all, numbered_frames, write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", numbered_frames(20), bframes=2)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "RETRY_DELAYS", (0.0, 0.0))


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in this process's memory."""
    file_system = filesystem("memory")
    yield file_system
    file_system.rm("/", recursive=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    """Serves tmp_path."""
    pytest.importorskip("aiohttp", reason="needs the extra http")
    with file_server(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as file_system:
        yield file_system


def assert_same(url: str, path: Path) -> None:
    with open_video(url) as video:
        assert video.path == url
        assert torch.equal(video.get_frames([15, 0, 7]), decode_all(path)[[15, 0, 7]])


# Names.


def test_addresses_are_told_from_paths() -> None:
    assert all(is_url(name) for name in ("s3://b/a.mp4", "memory://a", "hf://datasets/a/b/c.mp4", "https://a.org/b"))
    assert not any(is_url(name) for name in ("a.mp4", "/a/b.mp4", "C:/a.mp4", "a b://c.mp4", "a/s3://b", Path("a")))


def test_paths_are_joined() -> None:
    assert join("s3://b/clips/", "a b/c.mp4") == "s3://b/clips/a b/c.mp4"
    assert join("clips", "s3://b/c.mp4") == "s3://b/c.mp4"
    assert join("clips", "/abs/c.mp4") == "/abs/c.mp4"
    assert join("", "c.mp4") == "c.mp4"
    assert beside("s3://b/lists/train.txt", "classes.txt") == "s3://b/lists/classes.txt"
    assert beside("lists/train.txt", "classes.txt") == str(Path("lists") / "classes.txt")


def test_the_path_in_a_chain_of_addresses_is_that_of_its_first_link() -> None:
    chain = "zip://clips/train::s3://b/c.zip"
    assert join(chain, "a/1.mp4") == "zip://clips/train/a/1.mp4::s3://b/c.zip"
    assert beside(chain, "val") == "zip://clips/val::s3://b/c.zip"
    assert join("zip://::s3://b/c.zip", "a.txt") == "zip://a.txt::s3://b/c.zip"
    assert beside("zip://a.txt::s3://b/c.zip", "1.mp4") == "zip://1.mp4::s3://b/c.zip"
    assert join("simplecache::s3://b/clips/", "1.mp4") == "simplecache::s3://b/clips/1.mp4"
    assert beside("simplecache::zip://a/b::file:///c.zip", "d") == "simplecache::zip://a/d::file:///c.zip"
    assert path_in(chain).name == "train"
    assert path_in("simplecache::s3://b/list.txt").suffix == path_in("b/list.txt").suffix == ".txt"


@pytest.mark.parametrize("top", ["clips/train", ""])
def test_class_folders_in_an_archive(tmp_path: Path, clip: Path, top: str) -> None:
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        for place in ("fall/1.mp4", "fall/2.mp4", "rise/1.mp4"):
            archive.write(clip, f"{top}/{place}".lstrip("/"))
    annotations = read_annotation_folder(f"zip://{top}::file://{tmp_path}/c.zip")
    assert annotations.classes == ("fall", "rise")
    assert [sample.label for sample in annotations.samples] == [0, 0, 1]
    for sample in annotations.samples:
        assert_same(sample.path, clip)


def test_a_table_in_an_archive(tmp_path: Path, clip: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.write(clip, "data/train/1.mp4")
        archive.writestr("data/metadata.csv", "file_name,label\ntrain/1.mp4,a\n")
    (sample,) = read_annotation_folder(f"zip://data/train::file://{tmp_path}/c.zip").samples
    assert_same(sample.path, clip)


# Videos.


def test_a_video_in_memory(memory: Any, clip: Path) -> None:
    memory.pipe_file("/a b/clip.mp4", clip.read_bytes())
    assert_same("memory://a b/clip.mp4", clip)
    memory.pipe_file("/empty.mp4", b"")
    with pytest.raises(VideoError, match=r"^memory://empty\.mp4: the file is empty"):
        open_video("memory://empty.mp4")
    memory.pipe_file("/text.mp4", b"no video" * 100)
    with pytest.raises(VideoError, match=r"^memory://text\.mp4: not a video that can be read"):
        open_video("memory://text.mp4")


def test_a_large_video_goes_to_a_temporary_file(memory: Any, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/clip.mp4", clip.read_bytes())
    for limit in (1000, clip.stat().st_size):
        monkeypatch.setattr(sources, "IN_MEMORY", limit)
        open_files = len(list(Path("/dev/fd").iterdir()))
        file = open_bytes("memory://clip.mp4")
        assert not isinstance(file, io.BytesIO)
        assert file.read() == clip.read_bytes()
        file.close()
        assert_same("memory://clip.mp4", clip)
        assert len(list(Path("/dev/fd").iterdir())) == open_files


@pytest.mark.parametrize("name", ["clip.avi", "clip.webm", "clip.ts"])
def test_files_that_are_opened_anew_midway(name: str, memory: Any, tmp_path: Path) -> None:
    codec = {"clip.avi": "mpeg4", "clip.webm": "libvpx", "clip.ts": "mpeg2video"}[name]
    path = write_video(tmp_path / name, numbered_frames(20), codec=codec, bframes=None if codec == "libvpx" else 2)
    memory.pipe_file(f"/{name}", path.read_bytes())
    assert_same(f"memory://{name}", path)


def test_a_video_over_http(server: FileServer, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "a b.mp4").write_bytes(clip.read_bytes())
    assert_same(f"{server.url}/a%20b.mp4", clip)
    assert server.requests == 1  # fetched whole, once
    server.failures = [503, 500]
    assert_same(f"{server.url}/a%20b.mp4", clip)
    assert server.requests == 4


def test_trouble_with_a_server_is_told_apart(server: FileServer) -> None:
    with pytest.raises(VideoError, match=rf"^{server.url}/none\.mp4: there is no such file; check the address$"):
        open_video(f"{server.url}/none.mp4")
    for status in (401, 403):
        server.failures = [status]
        with pytest.raises(VideoError, match=r"/a\.mp4: no access \(.*; give credentials"):
            open_video(f"{server.url}/a.mp4")
    server.failures = [503, 503, 503]
    with pytest.raises(VideoError, match=r"/a\.mp4: cannot be fetched \(ClientResponseError: 503"):
        open_video(f"{server.url}/a.mp4")
    assert not server.failures
    with pytest.raises(VideoError, match=r"^http://127\.0\.0\.1:1/a\.mp4: the server cannot be reached \("):
        open_video("http://127.0.0.1:1/a.mp4")


def test_kinds_of_addresses_that_need_more() -> None:
    with pytest.raises(VideoError, match=r"^odd://a/b\.mp4: odd:// is no kind of address that fsspec knows"):
        open_video("odd://a/b.mp4")
    with pytest.raises(VideoError, match=r"reading dropbox:// needs another package: pip install 'dropbox'"):
        open_video("dropbox://a/b.mp4")


def test_a_video_on_s3(s3: Any, clip: Path) -> None:
    s3.pipe_file("bucket/a b/clip.mp4", clip.read_bytes())
    s3.pipe_file("bucket/empty.mp4", b"")
    assert_same("s3://bucket/a b/clip.mp4", clip)
    with pytest.raises(VideoError, match=r"^s3://bucket/empty\.mp4: the file is empty"):
        open_video("s3://bucket/empty.mp4")
    for missing in ("s3://bucket/none.mp4", "s3://nowhere/none.mp4"):
        with pytest.raises(VideoError, match=rf"^{missing}: there is no such file"):
            open_video(missing)


def test_s3_without_credentials_and_without_a_server(s3: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        type(s3).clear_instance_cache()
        with pytest.raises(VideoError, match=r"^s3://bucket/clip\.mp4: no access \(.*give credentials"):
            open_video("s3://bucket/clip.mp4")
    type(s3).clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(type(s3), "retries", 1)
    with pytest.raises(VideoError, match=r"^s3://bucket/clip\.mp4: the server cannot be reached"):
        open_video("s3://bucket/clip.mp4")
    type(s3).clear_instance_cache()  # of what knows the wrong endpoint


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_makes_connections_of_its_own(s3: Any, clip: Path) -> None:
    s3.pipe_file("bucket/clip.mp4", clip.read_bytes())
    assert open_bytes("s3://bucket/clip.mp4").read() == clip.read_bytes()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a hang shall end the child, not the tests
        try:
            os._exit(open_bytes("s3://bucket/clip.mp4").read() != clip.read_bytes())
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert open_bytes("s3://bucket/clip.mp4").read() == clip.read_bytes()


# Lists and folders.


def test_a_list_and_its_videos_on_s3(s3: Any, clip: Path) -> None:
    s3.pipe_file("bucket/clips/a b.mp4", clip.read_bytes())
    s3.pipe_file("bucket/lists/train.txt", b"a b.mp4 1\ns3://bucket/clips/a b.mp4 0\n")
    s3.pipe_file("bucket/lists/classes.txt", b"rise\nfall\n")
    annotations = read_list("s3://bucket/lists/train.txt", root="s3://bucket/clips")
    assert annotations.classes == ("rise", "fall")
    assert [sample.path for sample in annotations.samples] == ["s3://bucket/clips/a b.mp4"] * 2
    with open_sample(annotations.samples[0]) as video:
        assert video.num_frames == 20
    with pytest.raises(DataError, match=r"s3://bucket/lists/none\.txt: the annotation list cannot be read"):
        read_list("s3://bucket/lists/none.txt")
    s3.pipe_file("bucket/lists/odd.txt", b"a b.mp4 1\n")
    with pytest.raises(DataError, match=r"none of its first 1 videos exists, the first would be s3://bucket/x/a b\.mp"):
        read_list("s3://bucket/lists/odd.txt", root="s3://bucket/x")


def test_class_folders_on_s3(s3: Any, clip: Path) -> None:
    for name in ("b/2.mp4", "b/1.MP4", "a c/x/1.mp4", "a c/notes.txt", ".cache/a/1.mp4", "loose.mp4"):
        s3.pipe_file(f"bucket/train/{name}", clip.read_bytes())
    annotations = read_class_folders("s3://bucket/train")
    assert annotations.classes == ("a c", "b")
    assert [(sample.path, sample.label) for sample in annotations.samples] == [
        ("s3://bucket/train/a c/x/1.mp4", 0),
        ("s3://bucket/train/b/1.MP4", 1),
        ("s3://bucket/train/b/2.mp4", 1),
    ]
    with pytest.raises(DataError, match="holds no video in class folders"):
        read_class_folders("s3://bucket/nowhere")


def test_class_folders_over_http(server: FileServer, clip: Path, tmp_path: Path) -> None:
    for name in ("a c/1.mp4", "b/2.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(clip.read_bytes())
    annotations = read_class_folders(server.url)
    assert annotations.classes == ("a c", "b")
    assert [sample.path for sample in annotations.samples] == [f"{server.url}/a%20c/1.mp4", f"{server.url}/b/2.mp4"]
    assert_same(annotations.samples[0].path, clip)


def test_a_table_on_s3(s3: Any) -> None:
    s3.pipe_file("bucket/tables/train/metadata.csv", b"file_name,label\nx/1.mp4,rise\n")
    table = find_table("s3://bucket/tables/train")
    assert table is not None
    assert read_video_folder(table).samples == (Sample("s3://bucket/tables/train/x/1.mp4", (0,)),)
    assert find_table("s3://bucket/tables/val") is None


def test_frames_behind_an_address(memory: Any) -> None:
    from PIL import Image

    frames = numbered_frames(3)
    for number, picture in enumerate(frames, 1):
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "png")
        memory.pipe_file(f"/clip/img_{number:05}.png", content.getvalue())
    reader = FrameFolderReader("memory://clip", FrameFolder(3, template="img_{:05}.png"))
    assert torch.equal(reader.read([0, 2]), torch.from_numpy(frames[[0, 2]]))


def test_local_files_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b/c.txt", "a", "b/a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.parts for file in files_below(str(tmp_path))] == [("a",), ("b", "a.txt"), ("b", "c.txt")]


@pytest.mark.slow
def test_a_run_on_s3(s3: Any, tmp_path: Path) -> None:
    """A process of its own, with decoder processes that ask the server themselves; one video is missing."""
    root = write_class_folders(tmp_path / "clips")
    s3.put(str(root), "bucket/run", recursive=True)
    names = [f"class {label}/{number}.mp4 {label}" for label in range(3) for number in range(3)]
    s3.pipe_file("bucket/run_lists/run.txt", "\n".join([*names, "class 0/none.mp4 0"]).encode())
    options = ["data.workers_per_gpu=2", "data.videos_per_gpu=3", "total_epochs=1"]
    options += ["data.train.data_prefix=s3://bucket/run", "data.val.data_prefix=s3://bucket/run"]
    options += ["data.val.ann_file=s3://bucket/run_lists/run.txt"]
    command = [sys.executable, "-m", "iwin", "train", "iwin_nano_demo", "--work-dir", "run", "--cfg-options", *options]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "s3://bucket/run/class 0/none.mp4: there is no such file" in " ".join(result.stderr.split())
    assert (tmp_path / "run" / "last.safetensors").exists()
