from pathlib import Path

import pytest

from iwin.data.annotations import (
    Annotations,
    FrameFolder,
    FrameList,
    Sample,
    label_samples,
    labels_in,
    read_class_folders,
    read_list,
    split_folder,
)
from iwin.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_list_lines_are_read_whatever_separates_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "sub dir/two words.mp4", "b, c.mp4")
    (tmp_path / "list.txt").write_text(
        "a.mp4 0\n\n# a note\nsub dir/two words.mp4 12\na.mp4,3\nsub dir/two words.mp4, 4\nb, c.mp4\t5\n"
    )
    annotations = read_list(tmp_path / "list.txt", root=tmp_path)
    found = [(str(Path(sample.path).relative_to(tmp_path)), sample.label) for sample in annotations.samples]
    assert found == [
        ("a.mp4", 0),
        ("sub dir/two words.mp4", 12),
        ("a.mp4", 3),
        ("sub dir/two words.mp4", 4),
        ("b, c.mp4", 5),
    ]
    assert annotations.num_classes == 13
    assert annotations.classes is None


def test_absolute_paths_stay_as_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'a.mp4'} 0\n")
    assert read_list(tmp_path / "list.txt", root="elsewhere").samples[0].path == str(tmp_path / "a.mp4")


def test_class_names_lie_beside_the_list(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 1\n")
    (tmp_path / "classes.txt").write_text("running\nriding a bike\njumping\n\n")
    annotations = read_list(tmp_path / "list.txt", root=tmp_path)
    assert annotations.classes == ("running", "riding a bike", "jumping")
    assert annotations.num_classes == 3


@pytest.mark.parametrize("line", ["a.mp4", "a.mp4 one", "a.mp4 -1", "a.mp4 1.5", "0"])
def test_lines_of_another_form_are_refused_with_their_place(line: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "list.txt").write_text(f"a.mp4 0\n{line}\n")
    with pytest.raises(DataError, match=r"list\.txt:2: expected `path label`"):
        read_list(tmp_path / "list.txt", root=tmp_path)


def test_lists_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_list(tmp_path / "nowhere.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="names no video"):
        read_list(tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a text file"):
        read_list(tmp_path / "binary.txt")
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mp4 1\n")
    with pytest.raises(DataError, match="none of its first 2 videos exists"):
        read_list(tmp_path / "list.txt", root=tmp_path / "wrong")


def test_class_folders_are_labelled_in_the_order_of_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.mp4", "b/1.AVI", "b/deeper/3.webm", "a b/1.mkv", "a b/notes.txt", ".cache/1.mp4", "loose.mp4")
    annotations = read_class_folders(tmp_path)
    assert annotations.classes == ("a b", "b")
    found = [(str(Path(sample.path).relative_to(tmp_path)), sample.label) for sample in annotations.samples]
    assert found == [("a b/1.mkv", 0), ("b/1.AVI", 1), ("b/2.mp4", 1), ("b/deeper/3.webm", 1)]


def test_links_are_followed_and_those_that_lead_nowhere_are_listed(tmp_path: Path) -> None:
    (tmp_path / "disk" / "b").mkdir(parents=True)
    (tmp_path / "disk" / "b" / "1.mp4").touch()
    (tmp_path / "clips" / "a").mkdir(parents=True)
    (tmp_path / "clips" / "a" / "0.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "clips" / "a" / "again").symlink_to(tmp_path / "clips")
    (tmp_path / "clips" / "b").symlink_to(tmp_path / "disk" / "b")
    annotations = read_class_folders(tmp_path / "clips")
    found = [(str(Path(sample.path).relative_to(tmp_path / "clips")), sample.label) for sample in annotations.samples]
    assert found == [("a/0.mp4", 0), ("b/1.mp4", 1)]


def test_a_validation_split_takes_the_training_splits_labels(tmp_path: Path) -> None:
    touch(tmp_path, "c/1.mp4")
    annotations = read_class_folders(tmp_path, classes=["a", "b", "c"])
    assert annotations.samples[0].label == 2
    assert annotations.num_classes == 3
    with pytest.raises(DataError, match="'c' is not among the 2 classes"):
        read_class_folders(tmp_path, classes=["a", "b"])


def test_folders_without_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_class_folders(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds no video"):
        read_class_folders(tmp_path)


def test_labels_that_the_model_does_not_have_are_refused() -> None:
    annotations = Annotations((Sample("a.mp4", (4,)), Sample("b.mp4", (5,))), None, Path("list.txt"))
    annotations.check_labels(6)
    with pytest.raises(DataError, match=r"b\.mp4 has label 5, but the model has 5 classes"):
        annotations.check_labels(5)


def test_a_video_of_class_folders_is_named_with_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "b/1.mp4")
    with pytest.raises(DataError, match=rf"^{tmp_path}: b/1\.mp4 has label 1, but the model has 1 classes"):
        read_class_folders(tmp_path).check_labels(1)


def test_a_label_that_can_be_no_class_is_refused_where_classes_are_counted() -> None:
    samples = (Sample("a.mp4", (0,)), Sample("b.mp4", (2, 2_000_000_000)))
    with pytest.raises(DataError, match=r"list\.txt: b\.mp4 has label 2000000000, .*below 100000 unless"):
        Annotations(samples, None, "list.txt").count_classes()
    assert Annotations((Sample("a.mp4", (99_999,)),), None, "list.txt").count_classes() == 100_000


def test_labels_that_no_video_has_are_found() -> None:
    annotations = Annotations((Sample("a.mp4", (2,)), Sample("b.mp4", (5, 0))), None, "list.txt")
    assert annotations.unused_labels() == [1, 3, 4]


def test_class_names_that_do_not_suffice_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 2\n")
    (tmp_path / "classes.txt").write_text("running\njumping\n")
    with pytest.raises(DataError, match=r"names 2 classes, but .*list\.txt has label 2"):
        read_list(tmp_path / "list.txt", root=tmp_path)


def test_a_class_without_videos_is_refused_in_training_only(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "b/._1.mp4")
    with pytest.raises(DataError, match="b: the class folder holds no video"):
        read_class_folders(tmp_path)
    assert len(read_class_folders(tmp_path, classes=["a", "b"]).samples) == 1


def test_a_video_outside_the_class_folders_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a/1.mp4", "b/2.mp4", "notes.txt", ".hidden.mp4")
    read_class_folders(tmp_path)
    assert caplog.messages == []
    touch(tmp_path, "y.mp4", "x.mp4")
    assert len(read_class_folders(tmp_path).samples) == 2
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}: 2 videos lie outside of the class folders and are left out, such as ")
    assert message.endswith(f"{tmp_path}/x.mp4")


def test_class_folders_that_are_not_divided_get_the_command_that_divides_them(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    with pytest.raises(DataError, match=rf"train: there is no such folder; `iwin data list {tmp_path}` divides the "):
        read_class_folders(tmp_path / "train")
    touch(tmp_path, "val/a/3.mp4", "alone/val/a/1.mp4")
    with pytest.raises(DataError, match="train: there is no such folder; data_prefix must hold one folder of videos"):
        read_class_folders(tmp_path / "alone" / "train")
    with pytest.raises(DataError, match=r"a/1\.mp4: is a file; data_prefix must hold one folder of videos"):
        read_class_folders(tmp_path / "a" / "1.mp4")


def test_accents_that_stand_by_themselves_make_no_other_class(tmp_path: Path) -> None:
    touch(tmp_path, "train/a\u0308/1.mp4", "train/b/1.mp4", "val/\xe4/1.mp4", "val/a\u0308/2.mp4")
    train = read_class_folders(tmp_path / "train")
    val = read_class_folders(tmp_path / "val", classes=train.classes)
    assert (train.classes, [sample.label for sample in train.samples]) == (("b", "\xe4"), [0, 1])
    assert [(Path(sample.path).name, sample.label) for sample in val.samples] == [("2.mp4", 1), ("1.mp4", 1)]
    older = read_class_folders(tmp_path / "val", classes=["a\u0308", "b"])  # of a checkpoint
    assert (older.classes, {sample.label for sample in older.samples}) == (("a\u0308", "b"), {0})
    entries = [("a.mp4", ["a\u0308"], None), ("b.mp4", ["\xe4"], None)]
    assert label_samples(entries, source="t.csv", classes=None, multi_label=False).classes == ("\xe4",)


def test_what_training_refuses_can_be_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("running\njumping\n")
    (tmp_path / "list.txt").write_text("gone.mp4 0\na.mp4 -1\nb.mp4\nc.mp4 7\n")
    annotations = read_list(tmp_path / "list.txt", root="clips", strict=False)
    assert [(sample.path, sample.labels) for sample in annotations.samples] == [
        ("clips/gone.mp4", (0,)),
        ("clips/a.mp4", ()),
        ("clips/b.mp4", ()),
        ("clips/c.mp4", (7,)),
    ]
    assert annotations.num_classes == 2
    (tmp_path / "list.txt").write_text("a.mp4 run\nb.mp4 -1\n")
    with pytest.raises(DataError, match=r"list\.txt:1: expected `path label`.*`iwin data list` makes such lists"):
        read_list(tmp_path / "list.txt", strict=False)
    touch(tmp_path, "clips/a/1.mp4", "clips/c/1.mp4", "clips/b/notes.txt")
    folders = read_class_folders(tmp_path / "clips", strict=False)
    assert (folders.classes, [sample.labels for sample in folders.samples]) == (("a", "b", "c"), [(0,), (2,)])
    folders = read_class_folders(tmp_path / "clips", classes=["a", "b"], strict=False)
    assert (folders.classes, [sample.labels for sample in folders.samples]) == (("a", "b"), [(0,), (2,)])


@pytest.mark.parametrize("letter", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_line_ends_end_a_line(letter: str, tmp_path: Path) -> None:
    touch(tmp_path, f"a{letter}b.mp4", "c.mp4")
    (tmp_path / "list.txt").write_bytes(f"a{letter}b.mp4 0\r\nc.mp4 1\r\n".encode())
    (tmp_path / "classes.txt").write_bytes(f"x{letter}y\r\nz\r\n".encode())
    annotations = read_list(tmp_path / "list.txt", root=tmp_path)
    assert [Path(sample.path).name for sample in annotations.samples] == [f"a{letter}b.mp4", "c.mp4"]
    assert annotations.classes == (f"x{letter}y", "z")


def test_a_negative_label_is_none() -> None:
    assert [labels_in("-1"), labels_in([-1, 3]), labels_in("-x")] == [[], [3], ["-x"]]
    with pytest.raises(DataError, match=r"t\.csv: a\.mp4 has no label"):
        label_samples([("a.mp4", labels_in("-1"), None)], source="t.csv", classes=None, multi_label=False)
    entries = [("a.mp4", [], None), ("b.mp4", ["odd"], None), ("c.mp4", ["x"], None)]
    found = label_samples(entries, source="t.csv", classes=["x"], multi_label=False, strict=False)
    assert [sample.labels for sample in found.samples] == [(), (1,), (0,)]
    assert found.classes == ("x",)


# Several labels, frame folders, splits by other names.


def test_a_line_can_end_in_several_labels(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "two words.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 0 3\ntwo words.mp4, 2\na.mp4 4,1 4\n")
    annotations = read_list(tmp_path / "list.txt", root=tmp_path, multi_label=True)
    assert [sample.labels for sample in annotations.samples] == [(0, 3), (2,), (4, 1)]
    assert Path(annotations.samples[1].path).name == "two words.mp4"
    assert annotations.num_classes == 5
    with pytest.raises(DataError, match=r"a\.mp4 has label 3, but the model has 3 classes"):
        annotations.check_labels(3)


def test_several_labels_that_were_not_announced_are_refused_with_their_line(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "b.mp4 7")
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mp4 7 1\na.mp4 0, 3 1\n")
    with pytest.raises(DataError, match=r"list\.txt:3: names several labels of .*a\.mp4; .* need multi_class=True"):
        read_list(tmp_path / "list.txt", root=tmp_path)


@pytest.mark.parametrize(
    ("line", "frames", "stored"),
    [
        ("a b 127 5", FrameList(), FrameFolder(127, 1)),
        ("a b, 127, 5", FrameList("f{}.png", 0), FrameFolder(127, 0, "f{}.png")),
        ("a b 2 127 5", FrameList(with_offset=True), FrameFolder(127, 3)),
    ],
)
def test_lists_of_frame_folders(line: str, frames: FrameList, stored: FrameFolder, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "list.txt").write_text(f"{line}\n")
    (sample,) = read_list(tmp_path / "list.txt", root=tmp_path, frames=frames).samples
    assert (sample.path, sample.labels, sample.stored) == (str(tmp_path / "a b"), (5,), stored)


@pytest.mark.parametrize(
    ("frames", "line", "form"),
    [
        (FrameList(), "a 5", "path frames label"),
        (FrameList(with_offset=True), "a 127 5", "path offset frames label"),
    ],
)
def test_lines_of_frame_folders_that_lack_a_number(frames: FrameList, line: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(DataError, match=rf"list\.txt:1: expected `{form}`"):
        read_list(tmp_path / "list.txt", root=tmp_path, frames=frames)


def test_a_byte_order_mark_is_no_part_of_a_path(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "list.txt").write_bytes("\ufeffa.mp4 0\n".encode())
    assert read_list(tmp_path / "list.txt", root=tmp_path).samples[0].path == str(tmp_path / "a.mp4")


def test_a_split_may_go_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    assert split_folder(tmp_path / "val") == str(tmp_path / "validation")
    assert split_folder(tmp_path / "test") == str(tmp_path / "test")
    (tmp_path / "val").mkdir()
    assert split_folder(tmp_path / "val") == str(tmp_path / "val")
