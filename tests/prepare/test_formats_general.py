"""Plain lists and tables, files on disk, class names, and sources that are not certain."""

import json
from pathlib import Path

import pytest

from iwin.errors import DataError
from iwin.prepare.formats import Choice, read_annotations
from iwin.prepare.formats.library import Frames, Library
from iwin.prepare.formats.lists import read_list_rows
from iwin.prepare.formats.rows import Reading, Row, numbered
from iwin.prepare.formats.source import split_of
from iwin.prepare.formats.writing import Entry, divide, resolve, write_names
from tests.prepare import layouts
from tests.prepare.test_formats import lists

# ------------------------------------------------------------------------------------------- lists


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("D32_1gwq35E.mp4 0\n", [("D32_1gwq35E.mp4", (0,))]),
        ("test.mp4 0 3\n", [("test.mp4", (0, 3))]),
        ("imgs 5 127\nother imgs 6 2\n", [("imgs", (127,)), ("other imgs", (2,))]),
        ("imgs 2 5 127\n", [("imgs", (127,))]),
        ("0wR5jVB-WPk, 300, 12\n", [("0wR5jVB-WPk", (12,))]),
        ("a clip 5 30 0\nb 30 1\n", [("a clip 5", (0,)), ("b", (1,))]),
        ('"with, comma.mp4",3\n# a note\n\nplain.mp4\t4\n', [("with, comma.mp4", (3,)), ("plain.mp4", (4,))]),
        ("a.mp4 -1\nb.mp4 0\nimgs 5 -1\n", [("a.mp4", ()), ("b.mp4", (0,)), ("imgs", ())]),
        ("a.mp4 -1\nb.mp4 run\n", [("a.mp4", ()), ("b.mp4", ("run",))]),
        ("walking, 3.mp4,walking\r\nrun.mp4,running fast\r\n", [("walking, 3.mp4", ("walking",)),
                                                              ("run.mp4", ("running fast",))]),
    ],
)  # fmt: skip
def test_lines_of_lists(text: str, expected: list[tuple[str, tuple[object, ...]]], tmp_path: Path) -> None:
    layouts.write(tmp_path, "list.txt", text)
    assert [(row.names[0], row.labels) for row in read_list_rows(tmp_path / "list.txt")] == expected


def test_parts_of_frame_folders_stay_parts(tmp_path: Path) -> None:
    layouts.frames(tmp_path, "imgs", 8, "img_{:05}.jpg")
    layouts.write(tmp_path, "train.txt", "imgs 2 5 1\nimgs 0 2 0\nimgs 4 5 0\ngone 0 2 0\ngone 2 2 1\n")
    splits = lists(tmp_path, frames=True)[2]
    assert [entry.line for entry in splits["train"].entries] == ["imgs 2 5 1", "imgs 0 2 0", "imgs 4 5 0"]
    assert (splits["train"].repeated, splits["train"].conflicts, splits["train"].beyond) == (0, [], ["imgs"])
    assert splits["train"].missing == ["gone", "gone"]


@pytest.mark.parametrize(
    ("name", "text", "noted"),
    [("train.txt", "a.mp4 1\nb.mp4 2\n", True), ("train.txt", "a.mp4 1\nb.mp4 0\n", False),
     ("train.csv", "path,label\na.mp4,1\nb.mp4,2\n", True)],
)  # fmt: skip
def test_labels_that_do_not_count_from_0_are_told(name: str, text: str, noted: bool, tmp_path: Path) -> None:
    layouts.write(tmp_path, name, text)
    notes = numbered(read_annotations([tmp_path / name])[1]).notes
    assert [note.startswith("the smallest label is 1, while labels count from 0") for note in notes] == [True] * noted


def test_ucf101_without_its_classes_is_no_plain_list(tmp_path: Path) -> None:
    layouts.ucf101(tmp_path)
    (tmp_path / "ucfTrainTestlist" / "classInd.txt").unlink()
    with pytest.raises(DataError, match=r"list01\.txt: needs classInd\.txt beside it"):
        read_annotations([tmp_path])
    layouts.write(tmp_path / "mine", "trainlist01.txt", "a.mp4 0\n")
    assert read_annotations([tmp_path / "mine"])[0].name == "list"


def test_replacements_of_kinetics_go_before_what_they_replace(tmp_path: Path) -> None:
    layouts.kinetics(tmp_path)
    name = "-0j2Wd2AQXs_000005_000015.mp4"
    layouts.videos(tmp_path, f"replacement/replacement_for_corrupted_k400/{name}")
    found, _, splits = lists(tmp_path)
    assert f"replacement/replacement_for_corrupted_k400/{name} 2" in found["train"]
    assert splits["train"].unclear == []


def test_a_name_is_found_whatever_form_its_accents_have(tmp_path: Path) -> None:
    apart, composed = "cafe\u0301", "caf\u00e9"
    layouts.videos(tmp_path, f"{apart}/{apart}.mp4")
    layouts.write(tmp_path, "train.txt", f"{composed}/{composed}.mp4 0\n")
    assert lists(tmp_path, sources=("train.txt",))[0] == {"train": [f"{apart}/{apart}.mp4 0"]}


def test_lists_of_slowfast_are_read_beside_their_videos(tmp_path: Path) -> None:
    found, classes, _ = lists(layouts.slowfast(tmp_path))
    assert classes is None
    assert found == {"train": ["clips/wave (1)/a b.mp4 1", "clips/clap/c.mp4 0"], "val": ["clips/clap/d.mp4 0"]}


def test_a_list_finds_its_videos_under_another_root_ending_and_slash(tmp_path: Path) -> None:
    layouts.write(tmp_path, "val.txt", "data\\k400\\val\\yoga\\a.avi 0\nyoga/b.mp4 0\nyoga/gone.mp4 0\n")
    layouts.videos(tmp_path / "smaller", "yoga/a.mp4", "yoga/b.mp4", "zumba/gone.mp4")
    found, _, splits = lists(tmp_path, sources=("val.txt",), videos="smaller")
    assert found == {"val": ["yoga/a.mp4 0", "yoga/b.mp4 0"]}
    assert splits["val"].missing == ["yoga/gone.mp4"]


def test_a_list_names_ids_and_absolute_paths(tmp_path: Path) -> None:
    layouts.videos(tmp_path, "videos/-3B32lodo2M.mp4", "elsewhere/x.mp4")
    layouts.write(tmp_path, "train.csv", f"-3B32lodo2M 0\n{tmp_path}/elsewhere/x.mp4 1\n")
    found, _, splits = lists(tmp_path, sources=("train.csv",), videos="videos")
    assert found == {"train": ["-3B32lodo2M.mp4 0", f"{tmp_path}/elsewhere/x.mp4 1"]}
    assert splits["train"].elsewhere == []


def test_a_list_with_a_line_of_another_form_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    layouts.slowfast(tmp_path)
    (tmp_path / "val.csv").write_text("clips/clap/d.mp4\n")
    assert read_annotations([tmp_path])[1].notes == ["val.csv is passed over: it is not lists of `path label` lines"]
    with pytest.raises(DataError, match=r"val\.csv: holds no annotations of a known form"):
        read_annotations([tmp_path / "val.csv"])
    layouts.write(tmp_path, "val.csv", "clips/clap/d.mp4 0\n" * 300 + "clips/clap/e.mp4\n")
    with pytest.raises(DataError, match=r"val\.csv:301: expected a path and a label"):
        read_annotations([tmp_path / "val.csv"])


def test_class_names_beside_a_list_are_its_own(tmp_path: Path) -> None:
    layouts.slowfast(tmp_path)
    layouts.write(tmp_path, "classes.txt", "clap\nwave (1)\n")
    assert lists(tmp_path)[1] == ("clap", "wave (1)")


# ------------------------------------------------------------------------------------------- tables


def test_a_table_with_paths_that_begin_with_a_slash(tmp_path: Path) -> None:
    layouts.write(tmp_path, "train.csv", "clip_name,clip_path,label\nv_a,/train/Swing/v_a.avi,Swing\n")
    layouts.videos(tmp_path, "train/Swing/v_a.avi")
    assert lists(tmp_path, sources=("train.csv",))[0] == {"train": ["train/Swing/v_a.avi 0"]}


def test_a_table_divides_by_its_own_column(tmp_path: Path) -> None:
    layouts.write(
        tmp_path, "all.csv", "video;class;split\na.mp4;x;training\nb.mp4;y;valid\nc.mp4;y;test\nd.mp4;;test\n"
    )
    layouts.videos(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    found, _, splits = lists(tmp_path)
    assert found == {"train": ["a.mp4 0"], "val": ["b.mp4 1"], "test": ["c.mp4 1"]}
    assert splits["test"].unlabelled == 1
    layouts.write(tmp_path, "all.csv", "video,class,split\na.mp4,x,1\n")
    with pytest.raises(DataError, match="'1', which is no split"):
        lists(tmp_path)


def test_a_negative_label_in_a_table_is_none(tmp_path: Path) -> None:
    layouts.write(tmp_path, "train.csv", "path,label\na.mp4,-1\nb.mp4,3\n")
    layouts.videos(tmp_path, "a.mp4", "b.mp4")
    found, classes, splits = lists(tmp_path)
    assert (found, classes, splits["train"].unlabelled) == ({"train": ["b.mp4 3"]}, None, 1)


def test_a_json_table_may_have_several_labels(tmp_path: Path) -> None:
    rows = [{"filename": "a.mp4", "label": [0, 3]}, {"filename": "b.mp4", "label": [2]}]
    layouts.write(tmp_path, "train.json", json.dumps(rows))
    layouts.videos(tmp_path, "a.mp4", "b.mp4")
    assert lists(tmp_path)[0] == {"train": ["a.mp4 0 3", "b.mp4 2"]}


def test_a_table_with_two_columns_of_labels_asks(tmp_path: Path) -> None:
    layouts.write(tmp_path, "val.tsv", "path\tlabel\tcategory\na.mp4\t7\tsport\n")
    layouts.videos(tmp_path, "a.mp4")
    with pytest.raises(DataError, match="label and category may be the label; name it with --label-column"):
        lists(tmp_path)
    found, classes, _ = lists(tmp_path, choice=Choice(label_column="category"))
    assert (found, classes) == ({"val": ["a.mp4 0"]}, ("sport",))


@pytest.mark.parametrize("text", ["clip,act\na.mp4,run\n", "name;act\na.mp4;run\n", "act\tpath\nrun\ta.mp4\n"])
def test_columns_that_are_named_make_a_table(text: str, tmp_path: Path) -> None:
    layouts.write(tmp_path, "val.csv", text)
    layouts.videos(tmp_path, "a.mp4")
    with pytest.raises(DataError, match=r"expected .* a column of paths \(file_name, or what --path-column names\)"):
        lists(tmp_path, name="table")
    path = next(name for name in ("clip", "name", "path") if name in text)
    for name in (None, "table"):
        found, classes, _ = lists(tmp_path, name=name, choice=Choice(path_column=path, label_column="Act"))
        assert (found, classes) == ({"val": ["a.mp4 0"]}, ("run",))


# ------------------------------------------------------------------------------------------- what is not certain


def test_videos_may_lie_in_folders_below_their_class_folder(tmp_path: Path) -> None:
    layouts.videos(tmp_path / "undivided", "a/x/1.mp4", "b/y/z/2.mp4")
    layouts.videos(tmp_path / "divided", "train/a/x/1.mp4", "train/b/x/2.mp4", "val/b/x/3.mp4", "val/a/3.mp4")
    for name in (None, "folders"):
        assert lists(tmp_path / "undivided", name=name)[0] == {"": ["a/x/1.mp4 0", "b/y/z/2.mp4 1"]}
        assert lists(tmp_path / "divided", name=name)[0]["train"] == ["train/a/x/1.mp4 0", "train/b/x/2.mp4 1"]
    layouts.videos(tmp_path / "above", "videos/a/1.mp4", "videos/b/1.mp4")
    with pytest.raises(DataError, match="no annotations of a known form"):
        lists(tmp_path / "above")


def test_what_is_two_things_is_asked_about(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path)
    layouts.write(tmp_path, "train.txt", "train/wave/a b.mp4 0\n")
    with pytest.raises(DataError, match=r"can be read as class folders .* --format folders or --format list"):
        read_annotations([tmp_path])
    assert read_annotations([tmp_path], name="folders")[0].name == "folders"
    layouts.write(tmp_path, "classes.txt", "wave\nclap\n")  # with it, the list says what the folders say
    assert read_annotations([tmp_path])[0].name == "folders"


@pytest.mark.parametrize("folders", [("val",), ("val_256",), ("val", "test")])
def test_a_list_beside_folders_that_are_no_classes_is_read(folders: tuple[str, ...], tmp_path: Path) -> None:
    for folder in folders:
        layouts.videos(tmp_path / folder, "a.mp4")
        layouts.write(tmp_path, f"k400_{folder[:4].rstrip('_')}.txt", "a.mp4 5\n")
    assert read_annotations([tmp_path])[0].name == "list"


def test_tables_beside_folders_named_after_splits_are_read(tmp_path: Path) -> None:
    for name in ("Train", "Validation"):
        layouts.frames(tmp_path, f"{name}/34870", 2)
        layouts.write(tmp_path, f"{name}.csv", "video_id,label\n34870,Drumming Fingers\n")
    assert read_annotations([tmp_path])[0].name == "table"


def test_what_is_nothing_known_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no annotations of a known form"):
        read_annotations([tmp_path])
    with pytest.raises(DataError, match="there is no such folder or file"):
        read_annotations([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="did you mean 'ucf101'"):
        read_annotations([tmp_path], name="ucf-101")
    with pytest.raises(DataError, match=r"is not UCF101 lists; expected classInd\.txt"):
        read_annotations([tmp_path], name="ucf101")


def test_a_file_that_is_passed_over_is_told(tmp_path: Path) -> None:
    layouts.kinetics(tmp_path)
    layouts.write(tmp_path, "annotations/more.csv", "x,y\n1,2\n")
    with pytest.raises(DataError, match=r"more\.csv: is not Kinetics"):
        read_annotations([tmp_path / "annotations" / name for name in ("val.csv", "more.csv")])


@pytest.mark.parametrize("name", ["something-v2", "diving48", "hvu", "table"])
def test_broken_json_gets_a_sentence(name: str, tmp_path: Path) -> None:
    starts = {
        "something-v2": '[{"id": "1", "template": "a"',
        "diving48": '[{"vid_name": "a"',
        "hvu": '[{"filename": "a", "label": {"action": [0',
        "table": '[{"filename": "a.mp4", "label": 1},',
    }
    layouts.write(tmp_path, "train.json", starts[name])
    layouts.write(tmp_path, "labels.json", '{"a b": "0"}')
    layouts.write(tmp_path, "tags.json", '{"action": ["a"]}')
    with pytest.raises(DataError, match=r"train\.json:1: is not JSON"):
        read_annotations([tmp_path / "train.json"], name=name)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "hint"),
    [
        ("ucf101", "ucfTrainTestlist/classInd.txt", "2 ", "7 ", "numbered from 1"),
        ("hmdb51", "testTrainMulti_7030_splits/clap_test_split1.txt", " 2 ", " 5 ", "clap_test_split1.txt:2: expected"),
        ("kinetics", "annotations/val.csv", ",40,", ",forty,", "has no times; found 'forty'"),
        (
            "something-v2",
            "labels/train.json",
            "Holding [",
            "Dropping [",
            "'Dropping .something.* is none of the labels",
        ),
        ("something-v2", "labels/labels.json", '"2"', '"3"', "not numbered from 0 to 2"),
        ("jester", "labels/jester-v1-train.csv", "Drumming", "Humming", "'Humming Fingers' is none of the 3 classes"),
        ("moments", "moments_categories.txt", "blocking,2", "blocking,two", "expected `name,number`"),
        ("multi-moments", "annotations/trainingSet.csv", ",1,3", ",1,9", "a label 9, but 4 class names"),
        ("hvu", "HVU_Val_V1.0.csv", "diving|", "divin|", "the tag 'divin' of .* is in no category"),
        ("activitynet", "annotations/activity_net.v1-3.min.json", '"label": "Zumba"', '"lab": 1', "no list of labels"),
        ("diving48", "annotations/Diving48_V2_test.json", '"label": 0', '"label": null', "which is no number"),
        ("videofolder", "validation/metadata.jsonl", '"0001.mp4"', '""', "row 1 has no file_name"),
    ],
)
def test_files_that_break_their_rules_get_a_sentence(
    name: str, file: str, old: str, new: str, hint: str, tmp_path: Path
) -> None:
    path = layouts.LAYOUTS[name](tmp_path) / file
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new).encode())
    with pytest.raises(DataError, match=hint):
        numbered(read_annotations([tmp_path], name=name)[1])


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("trainlist01.txt", "train"),
        ("trainingSet.csv", "train"),
        ("something-something-v2-validation.json", "val"),
        ("HVU_Val_V1.0.csv", "val"),
        ("kinetics400_val_list_videos.txt", "val"),
        ("jester-v1-test.csv", "test"),
        ("latest.csv", None),
        ("train_and_val.csv", None),
    ],
)
def test_splits_by_the_names_of_files(name: str, split: str | None) -> None:
    assert split_of(Path(name)) == split


# ------------------------------------------------------------------------------------------- class names


def test_names_are_numbered_by_the_classes_that_are_given() -> None:
    reading = Reading({"train": [Row(("a.mp4",), ("air_drumming",)), Row(("b.mp4",), ("Zumba",))]})
    given = numbered(reading, classes=["zumba", "yoga", "air drumming"])
    assert [row.labels for row in given.splits["train"]] == [(2,), (0,)]
    assert [row.labels for row in numbered(reading).splits["train"]] == [(1,), (0,)]
    with pytest.raises(DataError, match=r"'air_drumming' is none of the 2 classes \(did you mean 'air drum'\?\)"):
        numbered(reading, classes=["air drum", "zumba"])


def test_numbers_of_the_source_follow_its_names() -> None:
    reading = Reading({"train": [Row(("a.mp4",), (1,))]}, classes=("x", "y"))
    assert numbered(reading, classes=["y", "x"]).splits["train"][0].labels == (0,)
    with pytest.raises(DataError, match="a label 1, but 1 class names"):
        numbered(Reading({"train": [Row(("a.mp4",), (1,))]}), classes=["x"])


def test_a_name_that_stands_twice_is_no_label() -> None:
    twice = ("salto", "salto", "leap")
    assert numbered(Reading({"train": [Row(("a.mp4",), (1,))]}, classes=twice)).classes == twice
    with pytest.raises(DataError, match="'salto' stands twice"):
        numbered(Reading({"train": [Row(("a.mp4",), ("salto",))]}, classes=twice))


# ------------------------------------------------------------------------------------------- files on disk


def test_frames_are_counted_without_flow_and_other_images(tmp_path: Path) -> None:
    layouts.frames(tmp_path, "a", 3, "img_{:05}.jpg")
    layouts.frames(tmp_path, "a", 4, "flow_x_{:05}.jpg")
    layouts.frames(tmp_path, "b", 2, "{}.png", first=0)
    (tmp_path / "a" / "thumbnail.jpg").write_bytes(layouts.image_bytes())
    assert Library(tmp_path).frames == {"a": Frames(3, "img_{:05}.jpg", 1), "b": Frames(2, "{}.png", 0)}


def test_several_files_that_may_be_meant_are_left_out_and_told(tmp_path: Path) -> None:
    layouts.something_v2(tmp_path)
    layouts.videos(tmp_path / "resized", "78687.mp4", "42326.webm")
    found, _, splits = lists(tmp_path)
    assert found["train"] == ["20bn-something-something-v2/78687.webm 2"]  # its ending decides
    assert [name for name, *_ in splits["train"].unclear] == ["42326.webm"]


def test_links_are_followed_and_do_not_lead_in_circles(tmp_path: Path) -> None:
    layouts.videos(tmp_path / "disk", "yoga/a.mp4")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "disk")
    assert Library(tmp_path / "data").find(["yoga/a.mp4"]) == ["train/yoga/a.mp4"]


def test_rows_that_disagree_keep_the_first(tmp_path: Path) -> None:
    layouts.videos(tmp_path, "a.mp4")
    reading = Reading({"train": [Row(("a.mp4",), (0,)), Row(("a.mp4",), (1,)), Row(("a.mp4",), (0,))]})
    split = resolve(reading, Library(tmp_path), frames=False)["train"]
    assert [entry.line for entry in split.entries] == ["a.mp4 0"]
    assert (split.listed, split.repeated, split.conflicts) == (1, 2, ["a.mp4"])


# ------------------------------------------------------------------------------------------- writing


def test_lines_that_a_list_could_not_hold(tmp_path: Path) -> None:
    assert Entry("#a.mp4", (0,)).line == "./#a.mp4 0"
    assert Entry(" a.mp4", (0,)).line == "./ a.mp4 0"
    assert Entry("\u2028a.mp4", (0,)).line == "./\u2028a.mp4 0"
    with pytest.raises(DataError, match="line break"):
        _ = Entry("a\nb.mp4", (0,)).line
    with pytest.raises(DataError, match="no UTF-8"):
        _ = Entry("caf\udce9.mp4", (0,)).line
    with pytest.raises(DataError, match="line break"):
        write_names(tmp_path / "classes.txt", ["a\nb"])


def test_every_class_keeps_a_video_for_training() -> None:
    entries = [
        Entry(f"{label}/{number}.mp4", (label,)) for label, count in ((0, 10), (1, 1)) for number in range(count)
    ]
    lists_ = divide(entries, val_share=0.3, seed=1, names=["a", "b"])
    assert [len(lists_[name]) for name in ("train", "val")] == [8, 3]
    assert Entry("1/0.mp4", (1,)) in lists_["train"]
    assert divide(entries, val_share=0.3, seed=1, names=["a", "b"]) == lists_
    assert divide(entries, val_share=0, seed=1).keys() == {"train"}


def test_links_that_lead_nowhere_are_passed_over(tmp_path: Path) -> None:
    layouts.class_folders(tmp_path)
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    (tmp_path / "gone.txt").symlink_to("nowhere.txt")
    assert read_annotations([tmp_path])[0].name == "folders"
