"""`iwin data check`, on files as the world has them."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iwin.data.annotations import read_list
from tests.commands import Result, iwin
from tests.prepare.files import BAD, write_audio, write_clip, write_endless

PROCESSES = ["--processes", "2"]


def check(*args: object, cwd: Path) -> Result:
    return iwin("data", "check", *args, *PROCESSES, cwd=cwd)


def report(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "data_check.json").read_text())
    return found


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips/{train,val} of two classes, all good."""
    root = tmp_path_factory.mktemp("check")
    for number, name in enumerate(["train/a/0", "train/a/1", "train/b/0", "val/a/0", "val/b/0"]):
        write_clip(root / "clips" / f"{name}.mp4", first=20 * number)
    return root


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(clips / "clips", tmp_path / "clips")
    return tmp_path


def test_a_good_data_set_passes(folder: Path) -> None:
    result = check("clips", cwd=folder)
    assert result.status == 0, result.err
    assert result.out.endswith("report: data_check.json\ntraining may start\n")
    assert result.err == ""
    assert report(folder)["may_train"] is True
    assert len((folder / "data_check.jsonl").read_text().splitlines()) == 5


def test_everything_that_is_wrong_is_found_and_left_out(folder: Path) -> None:
    train = folder / "clips" / "train"
    for problem, write in BAD.items():
        write(train / "a" / f"{problem}.mp4")
    write_audio(train / "a" / "song.mp4")
    write_clip(train / "a" / "short.mp4", count=3)
    write_clip(train / "a" / "odd.mp4", height=32, width=128)
    shutil.copy(train / "a" / "0.mp4", train / "a" / "copy.mp4")
    shutil.copy(folder / "clips" / "val" / "b" / "0.mp4", train / "b" / "leak.mp4")
    result = check("clips", "--min-frames", "8", "--clean", "clean", cwd=folder)
    assert result.status == 1
    assert result.out.splitlines()[-1] == (
        "training should not start: 8 of 14 videos (57.1%) are unfit, more than 1.0%"
    )
    left_out = {video["path"]: video["left_out"] for video in report(folder)["videos"]}  # type: ignore[attr-defined]
    assert {path: why for path, why in left_out.items() if why} == {
        **{f"train/a/{problem}.mp4": problem for problem in BAD},
        "train/a/song.mp4": "unreadable",
        "train/a/short.mp4": "short",
        "train/a/copy.mp4": "duplicate",
        "train/b/leak.mp4": "also in val",
    }
    assert report(folder)["odd"] == ["train: train/a/odd.mp4"]
    for problem in BAD:
        assert f"clips/train/a/{problem}.mp4: " in result.err
    clean = read_list(folder / "clean" / "train.txt", root=folder / "clips")
    assert [Path(sample.path).name for sample in clean.samples] == ["0.mp4", "1.mp4", "odd.mp4", "0.mp4"]
    assert clean.classes == ("a", "b")
    again = check("clean/train.txt", "clean/val.txt", "--root", "clips", cwd=folder)
    assert again.status == 0, again.out


def test_a_cap_on_bad_videos_can_be_chosen(folder: Path) -> None:
    BAD["unreadable"](folder / "clips" / "train" / "a" / "x.mp4")
    assert check("clips", cwd=folder).status == 1
    assert check("clips", "--max-bad-share", "0.2", cwd=folder).status == 0


def test_wrong_labels_are_a_reason_whatever_the_cap(folder: Path) -> None:
    shutil.copy(folder / "clips/train/a/0.mp4", folder / "clips/train/b/same.mp4")
    result = check("clips", "--max-bad-share", "1", cwd=folder)
    assert result.status == 1
    assert "1 video under different labels" in result.out.splitlines()[-1]


def test_classes_without_videos_are_a_reason(folder: Path) -> None:
    (folder / "clips" / "train.txt").write_text("train/a/0.mp4 0\ntrain/b/0.mp4 2\n")
    (folder / "clips" / "classes.txt").write_text("a\nnone\nb\n")
    result = check("clips/train.txt", cwd=folder)
    assert result.status == 1
    assert result.out.endswith("1 class without a video to train on, such as none\n")
    assert check("clips/train.txt", "--allow-empty-classes", cwd=folder).status == 0
    result = check("clips/train.txt", "--allow-empty-classes", "--num-classes", "2", cwd=folder)
    assert "1 video with a label outside the classes, such as train: train/b/0.mp4 (label 2)" in result.out


def test_a_list_that_would_be_replaced_is_refused_before_the_work(folder: Path) -> None:
    (folder / "clips" / "train.txt").write_text("train/a/0.mp4 0\nval/b/0.mp4 1\n")
    (folder / "link").symlink_to("clips")
    result = check("clips/train.txt", "--clean", "link/train.txt", cwd=folder)
    assert (result.status, result.out) == (1, "")
    assert result.err == "iwin: --clean link/train.txt: would replace the list that is checked; name another place\n"
    assert not list(folder.glob("data_check*"))


def test_shards_are_checked_by_their_index(folder: Path) -> None:
    BAD["undecodable"](folder / "clips" / "train" / "a" / "bad.mp4")
    assert iwin("data", "shard", "clips/train", "--out", "packed", *PROCESSES, cwd=folder).status == 0
    result = check("packed", cwd=folder)
    assert result.status == 1
    assert "packed/shard-000000.tar/" in result.err
    assert "1 of 4 videos (25.0%) are unfit" in result.out
    result = check("packed/index.json", "--clean", "clean.txt", cwd=folder)
    assert result.err == (
        "iwin: --clean clean.txt: a list cannot name videos in shards; check the files that these were made of\n"
    )
    assert not (folder / "clean.txt").exists()


def test_lines_that_training_refuses_are_all_found_and_the_rest_is_checked(folder: Path) -> None:
    BAD["undecodable"](folder / "clips" / "bad.mp4")
    lines = ("train/a/0.mp4 0", "train/a/1.mp4 -1", "train/b/0.mp4 2", "val/a/0.mp4", "val/b/0.mp4 1", "bad.mp4 0")
    (folder / "clips" / "train.txt").write_text("\n".join(lines))
    (folder / "clips" / "classes.txt").write_text("a\nb\n")
    result = check("clips/train.txt", "--clean", "clean.txt", cwd=folder)
    assert result.status == 1
    assert "4 of 6 videos (66.7%) are unfit" in result.out
    assert "2 videos without a label, such as train: train/a/1.mp4;" in result.out
    assert "1 video with a label outside the classes, such as train: train/b/0.mp4 (label 2)" in result.out
    assert result.err.startswith("clips/bad.mp4: ")
    found = report(folder)
    assert found["unlabelled"] == ["train: train/a/1.mp4", "train: val/a/0.mp4"]
    assert found["outside"] == ["train: train/b/0.mp4"]
    assert (folder / "clean.txt").read_text() == "train/a/0.mp4 0\nval/b/0.mp4 1\n"
    assert iwin("data", "info", "clips/train.txt", *PROCESSES, cwd=folder).status == 0
    made = iwin("data", "resize", "clips/train.txt", "--out", "small", *PROCESSES, cwd=folder)
    assert (made.status, made.out, made.err.count("\n")) == (1, "", 1)
    assert "train/a/1.mp4 has no label" in made.err


def test_class_folders_that_training_refuses_do_not_end_the_check(folder: Path) -> None:
    (folder / "clips" / "train" / "empty").mkdir()
    (folder / "clips" / "train" / "empty" / "notes.txt").touch()
    shutil.copytree(folder / "clips" / "val" / "a", folder / "clips" / "val" / "new")
    shutil.rmtree(folder / "clips" / "val" / "a")
    result = check("clips", "--allow-empty-classes", "--max-bad-share", "1", cwd=folder)
    assert result.status == 1
    assert result.out.splitlines()[-1] == (
        "training should not start: 1 video with a label outside the classes, such as val: val/new/0.mp4 (label 3); "
        "1 class folder without a video, such as empty"
    )
    assert report(folder)["outside"] == ["val: val/new/0.mp4"]


@pytest.mark.slow
def test_a_file_that_hangs_does_not_hold_up_the_others(folder: Path) -> None:
    write_endless(folder / "clips" / "train" / "a" / "endless.ts")
    result = check("clips", "--time-limit", "0.5", cwd=folder)
    assert result.status == 1
    assert "1 of 6 videos" in result.out
    assert "endless.ts: nothing came for 0.5 seconds" in result.err


def test_parquet_is_written_by_its_suffix(folder: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    assert check("clips", "--report", "out/r.parquet", cwd=folder).status == 0
    assert pq.read_table(folder / "out" / "r.parquet").num_rows == 5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_check_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 in the middle: nothing is lost, nothing is half written, no process stays behind."""
    for number in range(60):
        write_clip(tmp_path / "clips" / "a" / f"{number:02}.mp4", first=number, count=40)
    command = [sys.executable, "-m", "iwin", "data", "check", "clips", "--every-frame", *PROCESSES]
    journal = tmp_path / "data_check.jsonl"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as running:
        while not (journal.exists() and len(journal.read_text().splitlines()) >= 5):
            assert running.poll() is None
            time.sleep(0.01)
        running.kill()
    done = len(journal.read_text().splitlines())
    assert 5 <= done < 60
    assert not (tmp_path / "data_check.json").exists()
    wait_until_alone(tmp_path)
    assert check("clips", "--every-frame", cwd=tmp_path).status == 0
    assert len(report(tmp_path)["videos"]) == 60  # type: ignore[arg-type]
    lines = [json.loads(line) for line in journal.read_text().splitlines() if line.endswith("}")]
    assert 60 <= len(lines) <= 61
    assert len({line["name"] for line in lines}) == 60


def wait_until_alone(folder: Path) -> None:
    """Until no process works in the folder; one that stays makes the test run out of time."""
    while any(works_in(process, folder) for process in Path("/proc").iterdir() if process.name.isdigit()):
        time.sleep(0.05)


def works_in(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").readlink() == folder
    except OSError:
        return False


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["nowhere"], "nowhere: there is no such folder or file; name such a file, or a folder of class folders"),
        (["clips/train/a/0.mp4"], "0.mp4: is no list, table or index of shards; name such a file, or a folder"),
        (["clips", "--root", "clips"], "--root clips: has no effect"),
        (["clips", "--report", "r.txt"], "must end in .json or .parquet"),
        (["clips", "--processes", "0"], "--processes 0: is a whole number from 1 up"),
        (["clips", "--time-limit", "0"], "--time-limit 0: is a number of seconds above 0"),
        (["clips/train", "--clean", "clips/train/a/0.mp4/clean.txt"], "0.mp4 is no folder that can be written to"),
        (["clips/train", "--clean", "clips"], "clips is a folder; name a file in it"),
        (["clips", "--clean", "clips/train/a/0.mp4"], "0.mp4 is no folder that can be written to"),
        (["clips", "--min-frames", "0"], "--min-frames 0"),
        (["clips", "--max-bad-share", "2"], "--max-bad-share 2: is a share from 0 to 1"),
        (["clips", "--group-regex", "("], "is no regular expression"),
    ],
)
def test_bad_input_gets_a_sentence(clips: Path, args: list[str], hint: str) -> None:
    result = iwin("data", "check", *args, cwd=clips)
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("iwin: ")
    assert hint in result.err
    assert result.err.count("\n") == 1
