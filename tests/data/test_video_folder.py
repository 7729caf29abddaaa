from pathlib import Path

import pytest

from iwin.data.video_folder import Table, find_table, read_video_folder
from iwin.errors import DataError


def table(root: Path, text: str, *, name: str = "metadata.csv") -> Table:
    root.mkdir(exist_ok=True)
    (root / name).write_text(text)
    found = find_table(root)
    assert found is not None
    return found


def test_a_table_names_videos_and_classes(tmp_path: Path) -> None:
    annotations = read_video_folder(table(tmp_path, "file_name,label,note\nb/2.mp4,rise,\n1.mp4,fall,x\n"))
    assert annotations.classes == ("fall", "rise")
    assert [(sample.path, sample.labels) for sample in annotations.samples] == [
        (str(tmp_path / "b" / "2.mp4"), (1,)),
        (str(tmp_path / "1.mp4"), (0,)),
    ]


def test_lines_of_json_may_hold_several_labels(tmp_path: Path) -> None:
    text = '{"file_name": "1.mp4", "labels": [3, 0]}\n\n{"file_name": "2.mp4", "labels": [1]}\n'
    found = table(tmp_path, text, name="metadata.jsonl")
    annotations = read_video_folder(found, multi_label=True)
    assert [sample.labels for sample in annotations.samples] == [(3, 0), (1,)]
    assert annotations.classes is None
    with pytest.raises(DataError, match=r"1\.mp4 has 2 labels; several labels a video need multi_class=True"):
        read_video_folder(found)


def test_without_a_label_column_folders_are_classes(tmp_path: Path) -> None:
    annotations = read_video_folder(table(tmp_path, "file_name\nrise/2.mp4\nfall/1.mp4\n"))
    assert annotations.classes == ("fall", "rise")
    assert [sample.label for sample in annotations.samples] == [1, 0]


def test_a_table_above_the_splits_holds_them_all(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/1.mp4,a\ntrain/2.mp4,b\ntest/3.mp4,b\n")
    train, test = find_table(tmp_path / "train"), find_table(tmp_path / "test")
    assert train is not None
    assert test is not None
    classes = read_video_folder(train).classes
    annotations = read_video_folder(test, classes=classes)
    assert classes == ("a", "b")
    assert [(sample.path, sample.label) for sample in annotations.samples] == [(str(tmp_path / "test" / "3.mp4"), 1)]
    assert find_table(tmp_path / "clips") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name,label\n1.mp4,a\n", "has no column file_name; it has name, label"),
        ("file_name,label\n1.mp4,\n", r"1\.mp4 has no label"),
        ("file_name,label\n1.mp4,rize\n", r"the class 'rize' is not among the 2 classes .*did you mean 'rise'"),
        ("", "has no column file_name; it has none"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"metadata\.csv: .*{reason}"):
        read_video_folder(table(tmp_path, text), classes=["fall", "rise"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"file_name": "2.mp4"', r"is not a line of JSON \(Expecting ',' delimiter at column 22\)"),
        ('["2.mp4"]', "expected a JSON object such as"),
        ("3", "expected a JSON object such as"),
    ],
)
def test_a_broken_line_of_json_is_named_by_its_number(tmp_path: Path, line: str, reason: str) -> None:
    text = f'{{"file_name": "a/1\u2028.mp4"}}\n\n{line}\n{{"file_name": "a/3.mp4"}}\n'
    with pytest.raises(DataError, match=rf"metadata\.jsonl:3: {reason}"):
        read_video_folder(table(tmp_path, text, name="metadata.jsonl"))
