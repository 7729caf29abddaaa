"""The tools that stand under upstream's tools/ beside training and testing."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from iwin.build import load_trained
from iwin.checkpoint.io import read_weights
from iwin.checkpoint.source import file_sha256
from iwin.data.annotations import read_list
from iwin.engine.scores import write_scores
from tests.commands import SEVERAL, SMALL, Result, iwin


def tool(*args: object, cwd: Path) -> Result:
    return iwin("tool", *args, cwd=cwd)


def pairs(path: Path) -> list[tuple[str, str]]:
    """Path and label of each line of a list."""
    return [(line.rpartition(" ")[0], line.rpartition(" ")[2]) for line in path.read_text().splitlines()]


# ------------------------------------------------------------------------------------------- lists


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """clips/ with two classes of ten videos and one of a single one, whose content does not matter."""
    for name, count in (("b b", 10), ("a", 10), ("#c", 1)):
        for number in range(count):
            path = tmp_path / "clips" / name / f"{number} x.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return tmp_path


def test_class_folders_are_divided_class_by_class(folders: Path) -> None:
    result = tool("build_file_list", "clips", "lists", "--val-share", "0.3", cwd=folders)
    assert result.status == 0, result.err
    train, val = (pairs(folders / "lists" / f"{name}.txt") for name in ("train", "val"))
    assert [label for _, label in train] == ["0"] + ["1"] * 7 + ["2"] * 7
    assert [label for _, label in val] == ["1"] * 3 + ["2"] * 3
    assert len({path for path, _ in train + val}) == 21
    assert (folders / "lists" / "classes.txt").read_text() == "#c\na\nb b\n"
    read = read_list(folders / "lists" / "train.txt", root=folders / "clips")
    assert all(Path(sample.path).exists() for sample in read.samples)
    assert read.classes == ("#c", "a", "b b")
    assert "train.txt: 15 videos of 3 classes" in result.out


def test_lists_beside_the_videos_are_found_by_training(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "clips" / "train", tmp_path / "clips")
    result = tool("build_file_list", "clips", cwd=tmp_path)
    assert result.out.endswith("iwin train CONFIG --data clips\n")
    options = ["--data", "clips", "--work-dir", "run", "--cfg-options", *SMALL, "total_epochs=1"]
    training = iwin("train", "iwin_nano_demo", *options, cwd=tmp_path)
    assert training.status == 0, training.err
    assert "3 classes; 6 videos to train on, 3 to validate" in training.err


def test_a_list_is_not_overwritten_by_a_part_of_itself(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a.mp4 0\nb.mp4 0\n")
    result = tool("build_file_list", "train.txt", cwd=tmp_path)
    assert result.status == 1
    assert "would be overwritten" in result.err
    assert (tmp_path / "train.txt").read_text() == "a.mp4 0\nb.mp4 0\n"


def test_the_same_seed_divides_in_the_same_way(folders: Path) -> None:
    texts = []
    for seed in (1, 1, 2):
        assert tool("build_file_list", "clips", "lists", "--seed", seed, "--shuffle", cwd=folders).status == 0
        texts.append((folders / "lists" / "val.txt").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_folders_that_are_divided_already_stay_so(folders: Path) -> None:
    (folders / "split").mkdir()
    (folders / "clips").rename(folders / "split" / "train")
    (folders / "split" / "val" / "a").mkdir(parents=True)
    (folders / "split" / "val" / "a" / "new.mp4").touch()
    assert tool("build_file_list", "split", "lists", cwd=folders).status == 0
    assert len(pairs(folders / "lists" / "train.txt")) == 21
    assert pairs(folders / "lists" / "val.txt") == [("val/a/new.mp4", "1")]


def test_upstreams_arguments_are_understood(folders: Path) -> None:
    options = ["--level", "2", "--format", "videos", "--shuffle", "--out-root-path", "data", "--rgb-prefix", "img_"]
    result = tool("build_file_list", "mine", "clips", *options, "--subset", "train", cwd=folders)
    assert result.status == 0, result.err
    assert "note: --rgb-prefix has no effect" in result.err
    assert len(pairs(folders / "data" / "mine" / "mine_train_list_videos.txt")) == 21
    assert not (folders / "data" / "mine" / "mine_val_list_videos.txt").exists()


def test_a_list_of_names_is_divided_and_numbered(tmp_path: Path) -> None:
    lines = [f"{name}, {number}.mp4,{name}" for name in ("walking", "archery") for number in range(5)]
    (tmp_path / "all.csv").write_text("\n".join(lines))
    assert tool("build_file_list", "all.csv", "lists", cwd=tmp_path).status == 0
    assert (tmp_path / "lists" / "classes.txt").read_text() == "archery\nwalking\n"
    listed = pairs(tmp_path / "lists" / "train.txt") + pairs(tmp_path / "lists" / "val.txt")
    assert sorted(listed) == [(f"{name}, {n}.mp4", str(label)) for label, name in enumerate(("archery", "walking"))
                              for n in range(5)]  # fmt: skip


def test_a_list_of_numbers_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("".join(f"clip {n}.mp4 {1 + n % 2}\n" for n in range(10)))
    result = tool("build_file_list", "all.txt", "lists", "--val-share", "0", cwd=tmp_path)
    assert result.status == 0
    assert "no video has label 0" in result.err
    assert pairs(tmp_path / "lists" / "train.txt") == [(f"clip {n}.mp4", str(1 + n % 2)) for n in range(10)]
    assert {path.name for path in (tmp_path / "lists").iterdir()} == {"train.txt"}


# ------------------------------------------------------------------------------------------- checks


def test_videos_that_cannot_be_decoded_are_found(trained: Path, tmp_path: Path) -> None:
    options = ["--split", "val", "--num-processes", "1", "--output-file", tmp_path / "bad.txt"]
    clips = ["--cfg-options", "data.val.data_prefix=clips/val"]
    result = tool("check_videos", "iwin_nano_demo", *options, *clips, cwd=trained)
    assert result.status == 1
    assert result.out.startswith("clips/val/class 2/broken.mp4: not a video")
    assert result.err == "7 videos checked, 1 cannot be decoded\n"
    assert (tmp_path / "bad.txt").read_text() == "clips/val/class 2/broken.mp4\n"


def test_a_sound_split_passes(trained: Path) -> None:
    options = ["--num-processes", "1", "--decoder", "decord", "--cfg-options", "data.train.data_prefix=clips/train"]
    result = tool("check_videos", "iwin_nano_demo", *options, cwd=trained)
    assert (result.status, result.out) == (0, "")


# ------------------------------------------------------------------------------------------- scores


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """list.txt of four videos that are not on this machine, and two score files for them."""
    (tmp_path / "list.txt").write_text("a.mp4 0\nb c.mp4 1\nd.mp4 2\ne.mp4 1\n")
    eye, rows = np.eye(3, dtype=np.float32), np.full((4, 3), 0.1, dtype=np.float32)
    write_scores(tmp_path / "right.pkl", eye[[0, 1, 2, 1]])
    rows[:, 0] = 3
    write_scores(tmp_path / "wrong.json", rows)
    missing = eye[[0, 1, 2, 1]]
    missing[3] = np.nan
    write_scores(tmp_path / "missing.yaml", missing)
    return tmp_path


def figures(result: Result) -> dict[str, float]:
    assert result.status == 0, result.err
    lines = (line.split(": ") for line in result.out.splitlines())
    return {name: float(value) for name, value in lines if name != "fingerprint"}


def test_a_score_file_gives_its_figures(scored: Path) -> None:
    options = ["--eval", "top_k_accuracy", "--eval-options", "topk=(1,2)"]
    config = ["--cfg-options", "data.test.ann_file=list.txt"]
    found = tool("eval_metric", "iwin_nano_demo", "missing.yaml", *options, *config, cwd=scored)
    listed = {"top1_acc_listed": 0.75, "top2_acc_listed": 0.75}
    assert figures(found) == {"top1_acc": 1, "top2_acc": 1, **listed, "videos": 3, "listed": 4}


def test_a_score_file_of_several_labels_gives_its_figure(scored: Path) -> None:
    (scored / "list.txt").write_text("a.mp4 0 2\nb c.mp4 1\nd.mp4 2\ne.mp4 1, 0\n")
    metric = ["--eval", "mean_average_precision"]
    found = tool(
        "eval_metric", "iwin_nano_demo", "right.pkl", *metric, *SEVERAL, "data.test.ann_file=list.txt", cwd=scored
    )
    assert figures(found) == {"mean_average_precision": pytest.approx(0.8333, abs=1e-4), "videos": 4, "listed": 4}


def test_scores_of_testing_give_the_same_figures_again(trained: Path, tmp_path: Path) -> None:
    options = ["--eval", "top_k_accuracy", "--cfg-options", "data.test.data_prefix=clips/val", *SMALL]
    run = iwin("test", "iwin_nano_demo", "run/best.safetensors", "--out", tmp_path / "x.pkl", *options, cwd=trained)
    again = tool("eval_metric", "iwin_nano_demo", tmp_path / "x.pkl", *options, cwd=trained)
    assert figures(again) == figures(run)


def test_score_files_are_fused(scored: Path) -> None:
    files = ["--scores", "right.pkl", "wrong.json", "--datalist", "list.txt"]
    assert figures(tool("report_accuracy", *files, cwd=scored))["top1_acc"] == 0.25
    assert figures(tool("report_accuracy", *files, "--apply-softmax", cwd=scored))["top1_acc"] == 0.25
    weighed = tool("report_accuracy", *files, "--coefficients", "1", "0.1", cwd=scored)
    assert figures(weighed) == {"top1_acc": 1, "top5_acc": 1, "mean_class_accuracy": 1, "videos": 4, "listed": 4}
    assert [line.split()[0] for line in weighed.err.splitlines()] == ["right.pkl", "wrong.json"]


# ------------------------------------------------------------------------------------------- speed


def test_the_model_is_timed(trained: Path) -> None:
    result = tool("benchmark", "iwin_nano_demo", "--batch-size", "2", "--repeats", "2", "--cpu", cwd=trained)
    assert figures(result).keys() == {"clips/s", "videos/s", "clips a video"}
    assert "2 clips of 16x" in result.err


@pytest.mark.parametrize(("split", "views", "videos"), [("train", 1, 6), ("test", 6, 8)])
def test_the_pipeline_is_timed(trained: Path, split: str, views: int, videos: int) -> None:
    clips = f"data.{split}.data_prefix=clips/train"
    result = tool("bench_processing", "iwin_nano_demo", "--split", split, "--cfg-options", *SMALL, clips, cwd=trained)
    found = figures(result)
    assert found["videos"] == videos  # nine, without the first batch: of three in training, of one in testing
    assert found["views/s"] == pytest.approx(views * found["videos/s"], rel=0.01)


# ------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_published_model_predicts_and_tells_no_paths(trained: Path, tmp_path: Path, suffix: str) -> None:
    result = tool("publish_model", "run/best.safetensors", tmp_path / f"model{suffix}", cwd=trained)
    assert result.status == 0, result.err
    (path,) = tmp_path.iterdir()
    assert path.name == f"model-{file_sha256(path)[:8]}{suffix}"
    assert b"clips/" in (trained / "run" / "best.safetensors").read_bytes()
    assert b"clips/" not in path.read_bytes()
    published, own = load_trained(path), load_trained(trained / "run" / "best.safetensors")
    assert published.classes == own.classes
    assert published.config.model == own.config.model
    assert published.fingerprints == own.fingerprints != {}
    assert published.config.data.test is not None
    assert published.config.data.test.transforms == (own.config.data.test and own.config.data.test.transforms)


def test_training_state_is_not_published(trained: Path, tmp_path: Path) -> None:
    import torch

    state = read_weights(trained / "run" / "best.safetensors").state
    torch.save({"meta": {"env_info": "/home/me"}, "state_dict": state, "optimizer": {"x": 1}}, tmp_path / "in.pth")
    result = tool("publish_model", "in.pth", "out.pth", cwd=tmp_path)
    assert "left out: meta, optimizer" in result.out
    (path,) = tmp_path.glob("out-*.pth")
    assert b"/home/me" not in path.read_bytes()
    assert read_weights(path).state.keys() == state.keys()


@pytest.mark.parametrize("suffix", [".pkl", ".npy", ".json"])
def test_features_are_written_in_list_order(trained: Path, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "list.txt").write_text("class 0/0.mp4\nclass 2/broken.mp4 2\nclass 1/1.mp4 1\n")
    options = ["--video-list", tmp_path / "list.txt", "--video-root", "clips/val", "--out", tmp_path / f"out{suffix}"]
    weights = ["iwin_nano_demo", "run/best.safetensors"]
    result = tool("clip_feature_extraction", *weights, *options, "--cfg-options", *SMALL, cwd=trained)
    assert result.status == 0, result.err
    assert "2 of 3 videos, 192 features each" in result.out
    assert "broken.mp4" in result.err
    data = (tmp_path / f"out{suffix}").read_bytes()
    if suffix == ".json":
        rows = json.loads(data)
        assert [row and len(row) for row in rows] == [192, None, 192]
    else:
        rows = pickle.loads(data) if suffix == ".pkl" else np.load(tmp_path / "out.npy")
        assert [row.shape for row in rows] == [(192,)] * 3
        assert np.isnan(rows[1]).all()
        assert not np.allclose(rows[0], rows[2])


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["build_file_list", "nowhere", "lists"], "nowhere: there is no such folder or list"),
        (["build_file_list", "nowhere", "."], "nowhere: there is no such folder or list; taken as the name of a data"),
        (["build_file_list", "list.txt", "right.pkl"], "right.pkl is no folder that can be written to"),
        (["build_file_list", "list.txt", "lists", "--val-share", "1"], "--val-share 1.0"),
        (["build_file_list", "list.txt", "lists", "--format", "rawframes"], "frame folders"),
        (["build_file_list", "list.txt", "lists", "--level", "1"], "--level 1"),
        (["build_file_list", "right.pkl", "lists"], "right.pkl: the list cannot be read"),
        (["check_videos", "iwin_nano_demo", "--num-processes", "0"], "--num-processes"),
        (["eval_metric", "iwin_nano_demo", "right.pkl", "--options", "data.test.ann_file=no.txt"], "no.txt"),
        (["eval_metric", "iwin_nano_demo", "x.pkl", "--options", "data.test.ann_file=list.txt"], "x.pkl"),
        (["eval_metric", "iwin_nano_demo", "right.pkl", "--eval", "top1"], "--eval top1"),
        (["report_accuracy", "--scores", "right.pkl", "--coefficients", "1", "2", "--datalist", "list.txt"], "1 score"),
        (["report_accuracy", "--scores", "right.pkl", "--datalist", "no.txt"], "no.txt"),
        (["benchmark", "iwin_nano_demo", "--repeats", "0"], "--repeats"),
        (["bench_processing", "iwin_nano_demo", "--videos", "0"], "--videos"),
        (["publish_model", "right.pkl", "out.safetensors"], "right.pkl"),
        (["publish_model", "right.pkl", "out.zip"], ".safetensors or .pth"),
        (["clip_feature_extraction", "iwin_nano_demo", "x.pth", "--video-list", "no.txt", "--out", "x.npy"], "no.txt"),
        (["analyze_logs", "cal_train_time", "nowhere"], "nowhere: the log cannot be read"),
        (["analyze_logs", "cal_train_time", "list.txt"], "list.txt:1: is no line of JSON"),
        (["analyze_logs", "plot_curve", "list.txt", "--out", "x.gif"], ".png"),
    ],
)
def test_bad_input_gets_a_sentence_and_a_status(scored: Path, args: list[str], hint: str) -> None:
    before = sorted(scored.iterdir())
    result = tool(*args, cwd=scored)
    assert result.status == 1
    assert result.out == ""
    assert result.err.startswith("iwin: ")
    assert hint in result.err
    assert "Traceback" not in result.err
    assert sorted(scored.iterdir()) == before
