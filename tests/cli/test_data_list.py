"""`iwin data list` and `iwin data download`, as their users call them."""

import json
import shlex
from pathlib import Path

import pytest

from iwin.data.annotations import read_list
from tests.commands import SMALL, Result, iwin
from tests.prepare import layouts
from tests.prepare.layouts import LAYOUTS
from tests.prepare.server import Site, serving
from tests.runs import write_class_folders


@pytest.mark.parametrize("name", sorted(LAYOUTS.keys() - {"jester"}))
def test_every_layout_becomes_lists_that_are_read(name: str, tmp_path: Path) -> None:
    LAYOUTS[name](tmp_path / "set")
    result = iwin("data", "list", "set", "--out", "lists", cwd=tmp_path)
    assert result.status == 0, result.err
    assert f"(--format {name})" in result.out
    for split in ("train", "val"):
        annotations = read_list(tmp_path / "lists" / f"{split}.txt", root=tmp_path / "set", multi_label=True)
        assert annotations.samples
        assert all(Path(sample.path).is_file() for sample in annotations.samples)
    assert {path.suffix for path in (tmp_path / "lists").iterdir()} == {".txt"}


def test_what_is_missing_is_counted_named_and_left_out(tmp_path: Path) -> None:
    layouts.kinetics(tmp_path / "k")
    result = iwin("data", "list", "k", "--missing", "missing.txt", cwd=tmp_path)
    assert result.status == 0, result.err
    assert "val: 2 listed, 1 found, 1 missing, 1 of 3 classes, 1 to 1 videos each" in result.out
    assert "val: 1 are not there: air drumming/gone00000_x_000001_000011.mp4" in result.err
    assert "test: 1 without a label are left out" in result.err
    assert "3 classes are annotated here, while Kinetics has 400, 600 or 700" in result.err
    assert (tmp_path / "missing.txt").read_text() == "air drumming/gone00000_x_000001_000011.mp4\n"
    assert (tmp_path / "k" / "val.txt").read_text() == "val/air drumming/_dbcJuKJQNs_000040_000050.mp4 0\n"
    assert not (tmp_path / "k" / "test.txt").exists()
    assert "iwin train CONFIG --data k" in result.out
    kept = iwin("data", "list", "k", "--keep-missing", "--split", "val", "--out", "kept", cwd=tmp_path)
    assert kept.status == 0, kept.err
    assert (tmp_path / "kept" / "val.txt").read_text().splitlines()[1].startswith("air drumming/gone00000_x")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["classes.txt", "val.txt"]


def test_a_second_run_reads_the_same_annotations(tmp_path: Path) -> None:
    layouts.hmdb51(tmp_path / "h")
    first = iwin("data", "list", "h", cwd=tmp_path)
    assert iwin("data", "list", "h", cwd=tmp_path).out == first.out
    layouts.class_folders(tmp_path / "c")
    first = iwin("data", "list", "c", cwd=tmp_path)
    assert iwin("data", "list", "c", cwd=tmp_path).out == first.out  # in spite of the lists that are there now
    other = iwin("data", "list", "h", "--split", "2", "--out", "second", cwd=tmp_path)
    assert "division 2" in other.err
    assert (tmp_path / "second" / "train.txt").read_text() != (tmp_path / "h" / "train.txt").read_text()


def test_names_of_the_model_number_the_classes(tmp_path: Path) -> None:
    layouts.kinetics(tmp_path / "k")
    result = iwin("data", "list", "k", "--classes", "kinetics400", "--out", "lists", cwd=tmp_path)
    assert "classes are annotated here" not in result.err
    assert result.status == 0, result.err
    names = (tmp_path / "lists" / "classes.txt").read_text().splitlines()
    assert len(names) == 400
    lines = (tmp_path / "lists" / "train.txt").read_text().splitlines()
    assert [names[int(line.rpartition(" ")[2])] for line in lines] == [
        "petting animal (not cat)",
        "massaging person's head",
    ]


def test_frame_folders_are_listed_with_their_frames(tmp_path: Path) -> None:
    layouts.jester(tmp_path / "j")
    result = iwin("data", "list", "j", cwd=tmp_path)
    assert result.status == 0, result.err
    assert (tmp_path / "j" / "val.txt").read_text() == "20bn-jester-v1/9223 2 0\n"
    assert "data.val.type=RawframeDataset data.val.filename_tmpl={:05}.jpg\n" in result.out
    assert checked_as_told(result, tmp_path) == "train: frames are named as by filename_tmpl={:05}.jpg start_index=1"
    layouts.activitynet(tmp_path / "a")
    result = iwin("data", "list", "a", "--segments", cwd=tmp_path)
    assert result.status == 0, result.err
    assert (tmp_path / "a" / "val.txt").read_text() == "rawframes/v_o1WPnnvs00I 2 2 1\n"
    assert "data.val.filename_tmpl=img_{:05}.jpg data.val.with_offset=True\n" in result.out
    assert "--with-offset" in result.out
    assert checked_as_told(result, tmp_path) == ""
    layouts.multi_moments(tmp_path / "m")
    result = iwin("data", "list", "m", cwd=tmp_path)
    assert result.out.endswith("loss_cls.type=BCELossWithLogits\n  evaluation.metrics=[mean_average_precision]\n")


def checked_as_told(result: Result, folder: Path) -> str:
    """Check lists by the command that was printed with them; the first line that this says on standard error."""
    ((_, command),) = [line.split(": ", 1) for line in result.out.splitlines() if line.startswith("to check them")]
    options = ["--processes", "1", "--allow-empty-classes", "--max-bad-share", "1"]
    checked = iwin(*shlex.split(command)[1:], *options, cwd=folder)
    assert checked.status == 0, checked.out
    videos = json.loads((folder / "data_check.json").read_text())["videos"]
    assert videos
    assert {video["left_out"] for video in videos} <= {None}
    return checked.err.partition("\n")[0]


def test_lists_in_another_folder_are_checked_by_the_command_that_is_printed(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "clips", clips=4)
    result = iwin("data", "list", "clips", "--out", "my lists", cwd=tmp_path)
    assert "to check them: iwin data check 'my lists' --root clips\n" in result.out
    assert checked_as_told(result, tmp_path) == ""


def test_lists_of_parts_of_frame_folders_come_through(tmp_path: Path) -> None:
    layouts.frames(tmp_path / "set", "imgs", 9, "{:03}.png", first=0)
    layouts.write(tmp_path / "set", "train.txt", "imgs 0 4 1\nimgs 4 5 0\n")
    result = iwin("data", "list", "set", "--out", "lists", cwd=tmp_path)
    assert (tmp_path / "lists" / "train.txt").read_text() == "imgs 0 4 1\nimgs 4 5 0\n"
    assert checked_as_told(result, tmp_path).endswith("filename_tmpl={:03}.png start_index=0")
    again = iwin("data", "check", "lists", "--root", "set", "--with-offset", "--clean", "clean.txt", cwd=tmp_path)
    assert again.status == 0, again.out
    assert (tmp_path / "clean.txt").read_text() == "imgs 0 4 1\nimgs 4 5 0\n"
    (tmp_path / "set" / "imgs" / "006.png").unlink()
    broken = iwin("data", "check", "lists", "--root", "set", "--with-offset", cwd=tmp_path)
    assert "1 of 2 videos (50.0%) are unfit" in broken.out
    assert "imgs/006.png: the frame is missing" in broken.err


def test_lists_beside_the_videos_are_trained_on(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "clips", clips=4)
    result = iwin("data", "list", "clips", cwd=tmp_path)
    assert result.status == 0, result.err
    assert "0.2 of each class become val.txt" in result.err
    assert result.out.endswith("to train on them: iwin train CONFIG --data clips\n")
    options = ["--data", "clips", "--work-dir", "run", "--cfg-options", *SMALL, "total_epochs=1"]
    training = iwin("train", "iwin_nano_demo", *options, cwd=tmp_path)
    assert training.status == 0, training.err
    assert "3 classes; 9 videos to train on, 3 to validate" in training.err


def test_one_list_can_be_named(tmp_path: Path) -> None:
    layouts.write(tmp_path, "clips/mine.txt", "a.mp4 0\nb.mp4 1\n")
    layouts.videos(tmp_path / "clips", "a.mp4", "b.mp4")
    result = iwin("data", "list", "clips/mine.txt", "--split", "val", "--out", "lists", cwd=tmp_path)
    assert result.status == 0, result.err
    assert [path.name for path in (tmp_path / "lists").iterdir()] == ["val.txt"]
    assert "their paths are relative to clips" in result.out
    result = iwin("data", "list", "clips/mine.txt", "--split", "val", cwd=tmp_path)
    assert "to check them: iwin data check clips/val.txt\n" in result.out


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["nowhere"], "nowhere: there is no such folder or file"),
        (["set/ucfTrainTestlist"], "none of the 6 videos is there, the first would be ApplyEyeMakeup/v_"),
        (["set", "--format", "hmdb51"], "is not HMDB51 lists; expected <class>_test_split1.txt"),
        (["set", "--videos", "nowhere"], "--videos nowhere: there is no such folder"),
        (["set", "--split", "test"], "--split test: the annotations have no such split"),
        (["set", "--split", "1", "2"], "one division at a time"),
        (["set", "--classes", "nowhere.txt"], "--classes nowhere.txt: there is no such file"),
        (["set", "--classes", "few.txt"], "is none of the 1 classes"),
        (["set", "--segments"], "--segments: UCF101 lists"),
        (["set", "--frames"], "none of the 6 videos is there"),
        (["set", "--frames", "--keep-missing"], "--keep-missing: a line needs the number of frames"),
        (["set", "--out", "a.mp4"], "a.mp4 is no folder that can be written to"),
        (["set", "--out", "a.mp4/lists"], "a.mp4 is no folder that can be written to"),
        (["set", "--missing", "a.mp4/missing.txt"], "a.mp4 is no folder that can be written to"),
        (["set", "--val-share", "1"], "--val-share 1.0"),
        (["train.txt"], "would be overwritten by what is made of it"),
        (["binary.txt", "--format", "list"], "binary.txt: is not lists of"),
    ],
)
def test_bad_input_gets_a_sentence_and_writes_nothing(args: list[str], hint: str, tmp_path: Path) -> None:
    layouts.ucf101(tmp_path / "set")
    layouts.videos(tmp_path, "a.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 0\n")
    (tmp_path / "few.txt").write_text("ApplyEyeMakeup\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\x00\x01")
    before = sorted(tmp_path.rglob("*"))
    result = iwin("data", "list", *args, cwd=tmp_path)
    assert result.status == 1
    assert hint in result.err
    assert "Traceback" not in result.err
    assert sorted(tmp_path.rglob("*")) == before


def test_build_file_list_counts_the_frames_of_folders(tmp_path: Path) -> None:
    layouts.frames(tmp_path / "clips", "wave/clip 5", 3, "img_{:05}.jpg")
    layouts.frames(tmp_path / "clips", "clap/a", 2, "img_{:05}.jpg")
    result = iwin("tool", "build_file_list", "mine", "clips", "--format", "rawframes", "--subset", "val", cwd=tmp_path)
    assert result.status == 0, result.err
    lines = (tmp_path / "data" / "mine" / "mine_val_list_rawframes.txt").read_text()
    assert lines == "clap/a 2 0\nwave/clip 5 3 1\n"


# ------------------------------------------------------------------------------------------- download


def test_a_download_shows_what_it_fetches_and_asks(tmp_path: Path) -> None:
    index = "https://s3.amazonaws.com/kinetics/400/val/part_0.tar.gz\n"
    files = {
        "/kinetics/400/annotations/train.csv": b"label,youtube_id\n" * 100,
        "/kinetics/400/annotations/val.csv": b"label\n",
        "/kinetics/400/annotations/test.csv": b"label\n",
        "/kinetics/400/val/k400_val_path.txt": index.encode(),
        "/kinetics/400/val/part_0.tar.gz": b"x" * 1000,
    }
    with serving(Site(files)) as site:
        command = ["data", "download", "kinetics400", "--out", "k400", "--mirror", site.url]
        asked = iwin(*command, cwd=tmp_path)
        assert asked.status == 1
        assert "to fetch: 3 files, 1.71 kB" in asked.out
        assert "nothing was fetched; --yes fetches without asking" in asked.err
        assert not (tmp_path / "k400").exists()
        done = iwin(*command, "--yes", "--part", "annotations", "val", cwd=tmp_path)
        assert done.status == 0, done.err
        assert (tmp_path / "k400" / "val" / "part_0.tar.gz").read_bytes() == b"x" * 1000
        again = iwin(*command, "--yes", cwd=tmp_path)
        assert "3 files are there already" in again.out


def test_data_sets_without_direct_links_are_explained(tmp_path: Path) -> None:
    result = iwin("data", "download", "something-v2", cwd=tmp_path)
    assert result.status == 0
    assert "qualcomm.com" in result.out
    assert iwin("data", "download", "sthv2", cwd=tmp_path).out == result.out
    assert "make an account" in result.out
    assert len(iwin("data", "download", cwd=tmp_path).out.splitlines()) == 14


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["ucf"], "did you mean 'ucf101'"),
        (["ucf101"], "name the folder for the files with --out"),
        (["jester", "--out", "j"], "has no direct links"),
        (["ucf101", "--out", "u", "--part", "frames"], "UCF101 has videos, annotations"),
        (["ucf101", "--out", "u", "--attempts", "0"], "--attempts"),
    ],
)
def test_downloads_that_cannot_be_get_a_sentence(args: list[str], hint: str, tmp_path: Path) -> None:
    result = iwin("data", "download", *args, cwd=tmp_path)
    assert result.status == 1
    assert hint in result.err
    assert not list(tmp_path.iterdir())
