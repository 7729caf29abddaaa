"""A file that tells what is done."""

from pathlib import Path

import pytest

from iwin.errors import DataError
from iwin.prepare.journal import Journal


def test_later_lines_count(tmp_path: Path) -> None:
    path = tmp_path / "new" / "j.jsonl"
    with Journal(path) as journal:
        journal.add("a", {"n": 1})
        journal.add("b", {"n": 2})
        journal.add("a", {"n": 3})
    with Journal(path) as journal:
        assert journal.entries == {"a": {"n": 3}, "b": {"n": 2}}


@pytest.mark.parametrize("rubbish", ['{"name": "b", "n"', "[1]\n", "null\n", "{}\n", '{"name": ["b"]}\n'])
def test_lines_that_make_no_sense_are_passed_over(tmp_path: Path, rubbish: str) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.add("a", {"n": 1})
    path.write_text(path.read_text() + rubbish)
    with Journal(path) as journal:
        assert journal.entries == {"a": {"n": 1}}
        journal.add("c", {})
    with Journal(path) as journal:
        assert journal.entries == {"a": {"n": 1}, "c": {}}


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    name = b"caf\xe9.mp4".decode(errors="surrogateescape")
    with Journal(tmp_path / "j.jsonl") as journal:
        journal.add(name, {})
    with Journal(tmp_path / "j.jsonl") as journal:
        assert list(journal.entries) == [name]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.jsonl"), pytest.raises(DataError, match="another process is at work"):
        Journal(tmp_path / "j.jsonl")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="the journal cannot be written"):
        Journal(tmp_path / "file" / "j.jsonl")
