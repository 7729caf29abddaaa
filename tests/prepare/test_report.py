"""What a check leaves behind."""

import json
import sys
from pathlib import Path

import pytest

from iwin.data.annotations import Annotations, FrameFolder, Sample, read_list
from iwin.errors import DataError, IwinError
from iwin.prepare.audit import Audit, Rules, audit
from iwin.prepare.probe import VideoFacts
from iwin.prepare.report import report_of, write_clean_lists, write_report
from iwin.prepare.splits import Split


@pytest.fixture
def splits(tmp_path: Path) -> list[Split]:
    """A training split of three videos, one of them missing, and a validation split of one."""
    train = tuple(Sample(str(tmp_path / f"{number}.mp4"), (number % 2,)) for number in range(3))
    val = (Sample(str(tmp_path / "v.mp4"), (0, 1)),)
    for sample in (*train, *val):
        Path(sample.path).touch()
    return [
        Split("train", Annotations(train, ("x", "y"), tmp_path / "train.txt"), tmp_path),
        Split("val", Annotations(val, ("x", "y"), tmp_path / "val.txt"), tmp_path),
    ]


@pytest.fixture
def found(splits: list[Split]) -> Audit:
    paths = [sample.path for split in splits for sample in split.samples]
    facts = {path: VideoFacts(path, 5, 6, None, None, "mov", "h264", 8, 9, 10, 0.4, 25.0, 1.5) for path in paths}
    facts[paths[2]] = VideoFacts(paths[2], problem="missing", reason="is not there")
    return audit(splits, facts, Rules())


def test_the_report_tells_everything(splits: list[Split], found: Audit, tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", report_of(found, splits, Rules()))
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["may_train"] is False
    assert report["reasons"] == ["1 of 4 videos (25.0%) are unfit, more than 1.0%"]
    assert report["splits"]["train"] | {"fingerprint": ""} == {
        "source": str(tmp_path / "train.txt"),
        "videos": 3,
        "good": 2,
        "left_out": {"missing": 1},
        "fingerprint": "",
        "empty_classes": [],
    }
    assert [video["path"] for video in report["videos"]] == ["0.mp4", "1.mp4", "2.mp4", "v.mp4"]
    assert report["videos"][2]["left_out"] == "missing"
    assert report["videos"][3]["labels"] == [0, 1]


def test_parquet_has_a_row_for_each_video(splits: list[Split], found: Audit, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    report = report_of(found, splits, Rules())
    write_report(tmp_path / "r.parquet", report)
    table = pq.read_table(tmp_path / "r.parquet")
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == ["0.mp4", "1.mp4", "2.mp4", "v.mp4"]
    assert (rows[0]["num_frames"], rows[0]["duration"], rows[0]["problem"]) == (10, 0.4, None)
    assert (rows[2]["problem"], rows[2]["num_frames"], rows[3]["labels"]) == ("missing", None, "0 1")
    rest = json.loads(table.schema.metadata[b"iwin"])
    assert rest == {name: value for name, value in report.items() if name != "videos"}
    assert list(report["videos"][0]) == table.column_names


def test_parquet_without_pyarrow_says_what_to_install(
    splits: list[Split], found: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(IwinError, match="pip install pyarrow"):
        write_report(tmp_path / "r.parquet", report_of(found, splits, Rules()))
    assert not (tmp_path / "r.parquet").exists()


def test_clean_lists_lack_what_is_unfit(splits: list[Split], found: Audit, tmp_path: Path) -> None:
    paths = write_clean_lists(tmp_path / "clean", found, splits)
    assert paths == [tmp_path / "clean" / "train.txt", tmp_path / "clean" / "val.txt"]
    assert paths[0].read_text() == "0.mp4 0\n1.mp4 1\n"
    val = read_list(paths[1], root=tmp_path, multi_label=True)
    assert val.samples == splits[1].samples
    assert val.classes == ("x", "y")


def test_lists_of_frame_folders_keep_their_form(tmp_path: Path) -> None:
    sample = Sample(str(tmp_path / "imgs"), (2,), FrameFolder(5))
    split = Split("train", Annotations((sample,), None, tmp_path / "train.txt"), tmp_path)
    found = audit([split], {sample.key: VideoFacts(sample.key, num_frames=5)}, Rules())
    (path,) = write_clean_lists(tmp_path / "clean.txt", found, [split])
    assert path.read_text() == "imgs 5 2\n"


def test_lists_are_not_replaced_by_their_clean_ones(splits: list[Split], found: Audit, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="would replace the list that is checked"):
        write_clean_lists(tmp_path, found, splits)
    assert not (tmp_path / "train.txt").exists()


def test_an_empty_list_is_not_written(splits: list[Split], tmp_path: Path) -> None:
    facts = {sample.path: VideoFacts(sample.path, problem="empty") for sample in splits[1].samples}
    with pytest.raises(DataError, match="no video of val is good"):
        write_clean_lists(tmp_path / "clean.txt", audit(splits[1:], facts, Rules()), splits[1:])
