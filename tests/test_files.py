"""Files and folders that are there whole or not at all."""

import json
import os
from pathlib import Path

import pytest

from iwin.errors import IwinError
from iwin.files import (
    check_writable,
    completed_folder,
    empty_folder,
    link,
    replace_folder,
    save_json,
    write_atomically,
)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(IwinError, match="No space left"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["file/a.txt", "file/new/a.txt", f"{'long' * 80}.txt"])
def test_a_place_where_nothing_can_be_written_gets_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IwinError, match="cannot be written"):
        write_atomically(tmp_path / name, lambda temporary: temporary.write_text("text"))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_json_holds_names_that_are_no_text(tmp_path: Path) -> None:
    value = {"name": os.fsdecode(b"caf\xe9 \xf0\x9f\x90\x88"), "n": [1]}
    save_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "caf\\udce9 \N{CAT}" in text
    assert json.loads(text) == value


def test_a_link_is_another_name_that_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "epoch_1").write_text("one")
    link(tmp_path / "epoch_1", tmp_path / "best")
    (tmp_path / "epoch_1").unlink()
    assert (tmp_path / "best").read_text() == "one"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for text in ("one", "two"):
        empty_folder(tmp_path / "staging")
        (tmp_path / "staging" / text).touch()
        replace_folder(tmp_path / "staging", tmp_path / "state")
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_crash_between_the_renames_is_undone(tmp_path: Path) -> None:
    (tmp_path / "state.old").mkdir()
    assert completed_folder(tmp_path / "state").is_dir()


def test_what_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "record.json")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(IwinError, match="is a folder; name a file in it"):
        check_writable(tmp_path / "new")
    with pytest.raises(IwinError, match=r"x\.json: cannot be written"):
        check_writable(tmp_path / "file" / "x.json")
