"""What SOURCE stands for."""

from dataclasses import replace
from pathlib import Path

import pytest

from iwin.data.annotations import FrameFolder, FrameList, ShardMember
from iwin.errors import DataError
from iwin.prepare.shards import plan_shards, write_shards
from iwin.prepare.splits import Split, read_splits, refuse_unfit, write_split
from tests.prepare import layouts
from tests.prepare.files import write_clip


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def lines(split: Split) -> list[tuple[str, tuple[int, ...]]]:
    return [(split.relative(sample.path), sample.labels) for sample in split.samples]


def test_lists_are_relative_to_their_folder_or_the_root(tmp_path: Path) -> None:
    touch(tmp_path / "videos" / "a b.mp4")
    (tmp_path / "train.txt").write_text("videos/a b.mp4 1\n")
    (tmp_path / "val.csv").write_text("a b.mp4,0\n")
    (train,) = read_splits([tmp_path / "train.txt"])
    (val,) = read_splits([tmp_path / "val.csv"], root=tmp_path / "videos")
    assert (train.name, lines(train)) == ("train", [("videos/a b.mp4", (1,))])
    assert (val.name, lines(val)) == ("val", [("a b.mp4", (0,))])


def test_a_folder_with_a_training_list_is_read_by_its_lists(tmp_path: Path) -> None:
    touch(tmp_path / "videos" / "x" / "a.mp4", tmp_path / "annotations" / "notes.txt")
    for name in ("train", "val"):
        (tmp_path / f"{name}.txt").write_text("videos/x/a.mp4 0 2\n")
    splits = read_splits([tmp_path], multi_label=True)
    assert [split.name for split in splits] == ["train", "val"]
    assert [lines(split) for split in splits] == [[("videos/x/a.mp4", (0, 2))]] * 2


def test_several_labels_and_frame_folders_are_read(tmp_path: Path) -> None:
    (tmp_path / "imgs").mkdir()
    (tmp_path / "train.txt").write_text("imgs 5 3 4\n")
    (split,) = read_splits([tmp_path / "train.txt"], multi_label=True, frames=FrameList())
    assert split.samples[0].labels == (3, 4)
    assert split.samples[0].stored == FrameFolder(5)
    write_split(tmp_path / "copy.txt", split.samples, classes=None, frames=split.frames)
    assert (tmp_path / "copy.txt").read_text() == f"{tmp_path}/imgs 5 3 4\n"


def test_a_folder_with_train_in_it_holds_splits(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("train/x/a.mp4", "train/y/a.mp4", "val/y/b.mp4", "notes/z/c.mp4")))
    train, val = read_splits([tmp_path])
    assert (train.name, lines(train)) == ("train", [("train/x/a.mp4", (0,)), ("train/y/a.mp4", (1,))])
    assert (val.name, lines(val)) == ("val", [("val/y/b.mp4", (1,))])
    assert train.annotations.classes == val.annotations.classes == ("x", "y")


def test_a_split_is_read_from_the_folder_of_its_usual_name(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("train/x/a.mp4", "val/x/b.mp4", "dev/x/c.mp4", "valid/x/d.mp4")))
    _, val = read_splits([tmp_path])
    assert (val.name, lines(val)) == ("val", [("val/x/b.mp4", (0,))])


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    touch(tmp_path / "clips" / "test" / "a.mp4", tmp_path / "clips" / "rest" / "a.mp4")
    (split,) = read_splits([tmp_path / "clips"])
    assert split.name == "clips"
    assert split.annotations.classes == ("rest", "test")


def test_tables_and_shards_are_read(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write_clip(tmp_path / "clips" / name / "fall" / "0.mp4")
    rows = "file_name,label\ntrain/fall/0.mp4,fall\nval/fall/0.mp4,fall\n"
    (tmp_path / "clips" / "metadata.csv").write_text(rows)
    (table,) = read_splits([tmp_path / "clips" / "metadata.csv"])
    assert (table.name, len(table.samples), table.annotations.classes) == ("clips", 2, ("fall",))
    (tmp_path / "clips" / "val").rename(tmp_path / "clips" / "validation")
    (tmp_path / "clips" / "metadata.csv").write_text(rows.replace("val/", "validation/"))
    train, val = read_splits([tmp_path / "clips"])
    assert [train.name, val.name] == ["train", "val"]
    assert [sample.labels for sample in (*train.samples, *val.samples)] == [(0,), (0,)]
    for split in (train, val):
        plan = plan_shards(split, tmp_path / "packed" / split.name, max_size=10**9, max_count=10, seed=None)
        assert all(list(write_shards(plan, tmp_path / "packed" / split.name, processes=1, time_limit=60)))
    (packed,) = read_splits([tmp_path / "packed" / "train" / "index.json"])
    assert (packed.name, len(packed.samples), packed.annotations.classes) == ("train", 1, ("fall",))
    assert isinstance(packed.samples[0].stored, ShardMember)
    assert [found.name for found in read_splits([tmp_path / "packed"])] == ["train", "val"]


def test_addresses_are_refused() -> None:
    with pytest.raises(DataError, match="s3://bucket/train: is an address"):
        read_splits(["s3://bucket/train"])


def test_names_have_to_differ(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4")
    for folder in ("a", "b"):
        (tmp_path / folder / "train.txt").write_text("x.mp4 0\n")
    with pytest.raises(DataError, match="two sources are called 'train'"):
        read_splits([tmp_path / "a" / "train.txt", tmp_path / "b" / "train.txt"])


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "a.mp4")
    for source in (tmp_path, tmp_path / "metadata.csv"):
        with pytest.raises(DataError, match=r"--root .* has no effect"):
            read_splits([source], root=tmp_path)
    touch(tmp_path / "lists" / "val.txt")
    (tmp_path / "lists" / "val.txt").write_text("a.mp4 0\n")
    (val,) = read_splits([tmp_path / "lists"], root=tmp_path / "x")  # it has one on a folder of lists
    assert lines(val) == [("a.mp4", (0,))]
    (tmp_path / "lists" / "val.txt").rename(tmp_path / "val.txt")  # beside class folders, it is one list of several
    (tmp_path / "lists").rmdir()
    assert read_splits([tmp_path])[0].annotations.classes == ("x",)
    (tmp_path / "val.txt").unlink()
    with pytest.raises(DataError, match="--frame-folders: has no effect"):
        read_splits([tmp_path], frames=FrameList())


def test_a_source_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        read_splits([tmp_path / "no"])
    with pytest.raises(DataError, match="cannot be read"):
        read_splits([tmp_path / "no.txt"])
    for name in ("metadata.csv", "index.json"):
        with pytest.raises(DataError, match=f"{name}: there is no such file"):
            read_splits([tmp_path / name])


def test_how_frames_are_named_is_found_out_and_parts_stay_parts(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    layouts.frames(tmp_path, "late", 6, "f{:03}.png", first=2)
    for name in ("a b", "c"):
        layouts.frames(tmp_path, name, 8, "f{:03}.png", first=0)
    text = "other 0 3 0\nlate 0 2 0\na b 2 5 1\nc 0 8 0\na b 0 2 0\n"
    (tmp_path / "train.txt").write_text(text)
    (split,) = read_splits([tmp_path / "train.txt"], frames=FrameList(with_offset=True))
    assert split.frames == FrameList("f{:03}.png", 0, with_offset=True)
    assert split.samples[2].stored == FrameFolder(5, 2, "f{:03}.png")
    copies = [replace(sample, path=split.relative(sample.path)) for sample in split.samples]
    write_split(tmp_path / "copy.txt", copies, classes=None, frames=split.frames)
    assert (tmp_path / "copy.txt").read_text() == text


@pytest.mark.parametrize(
    ("line", "frames", "hint"),
    [
        ("clips/gone.mp4 0", None, "none of its 1 videos is there.*with --root"),
        ("clips/gone 5 0", FrameList(), "none of its 1 folders is there.*with --root"),
        ("clips 5 0", None, "add --frame-folders"),
        ("clips 2 5 0", FrameList(), "add --with-offset"),
    ],
)
def test_a_list_of_which_nothing_is_there_is_refused(
    line: str, frames: FrameList | None, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(DataError, match=hint):
        read_splits([tmp_path / "list.txt"], frames=frames)


def test_a_list_whose_first_videos_are_missing_is_read(tmp_path: Path) -> None:
    touch(tmp_path / "there.mp4")
    (tmp_path / "list.txt").write_text("".join(f"{number}.mp4 0\n" for number in range(30)) + "there.mp4 0\n")
    assert len(read_splits([tmp_path / "list.txt"])[0].samples) == 31


def test_a_table_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("path,label\na.mp4,0\n")
    with pytest.raises(DataError, match=r"is a table .*`iwin data list .*all\.csv` makes lists"):
        read_splits([tmp_path / "all.csv"])


def test_what_cannot_be_trained_on_is_refused_where_lists_are_made_of_it(tmp_path: Path) -> None:
    touch(*(tmp_path / "clips" / name for name in ("train/x/a.mp4", "train/y/no.txt", "val/x/b.mp4", "val/z/c.mp4")))
    train, val = read_splits([tmp_path / "clips"])
    assert (train.hollow, val.hollow) == (("y",), ())
    assert lines(val) == [("val/x/b.mp4", (0,)), ("val/z/c.mp4", (2,))]
    with pytest.raises(DataError, match=r"train/y: the class folder holds no video"):
        refuse_unfit([train])
    with pytest.raises(DataError, match=r"val: val/z/c\.mp4 has label 2, of 2 classes .*--clean"):
        refuse_unfit([val])
    (tmp_path / "clips" / "list.txt").write_text("train/x/a.mp4 -1\nval/x/b.mp4 0\n")
    with pytest.raises(DataError, match=r"list\.txt: train/x/a\.mp4 has no label"):
        refuse_unfit(read_splits([tmp_path / "clips" / "list.txt"]))
