"""Many files at once: what hangs is killed, what is known is not looked into again."""

import json
import os
from pathlib import Path

import pytest

from iwin.data.annotations import Sample
from iwin.prepare.probe import VideoFacts
from iwin.prepare.scan import scan
from tests.prepare.files import BAD, write_clip, write_endless


def samples(*paths: Path) -> list[Sample]:
    return [Sample(str(path), (0,)) for path in paths]


def look(found: list[Sample], **options: object) -> dict[str, VideoFacts]:
    facts = list(scan(found, processes=2, **options))  # type: ignore[arg-type]
    assert sorted(one.path for one in facts) == sorted(one.path for one in found)
    return {Path(one.path).name: one for one in facts}


def test_every_file_gets_its_facts(tmp_path: Path) -> None:
    bad = {problem: write(tmp_path / f"{problem}.mp4") for problem, write in BAD.items()}
    good = write_clip(tmp_path / "good.mp4")
    facts = look(samples(good, tmp_path / "missing.mp4", *bad.values()))
    assert {path: one.problem for path, one in facts.items()} == {
        "good.mp4": None,
        "missing.mp4": "missing",
        **{f"{problem}.mp4": problem for problem in BAD},
    }
    assert facts["good.mp4"].num_frames == 24


def test_only_files_of_equal_size_are_hashed(tmp_path: Path) -> None:
    a, b = write_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    b.write_bytes(a.read_bytes())
    c = write_clip(tmp_path / "c.mp4", count=30)
    facts = look(samples(a, b, c), digests=True)
    assert facts["a.mp4"].digest == facts["b.mp4"].digest is not None
    assert facts["c.mp4"].digest is None


@pytest.mark.slow
def test_a_decode_that_hangs_is_killed_and_the_rest_goes_on(tmp_path: Path) -> None:
    endless = write_endless(tmp_path / "endless.ts")
    clips = [write_clip(tmp_path / f"{number}.mp4", first=number) for number in range(4)]
    journal = tmp_path / "check.jsonl"
    facts = look(samples(endless, *clips), time_limit=0.5, journal=journal)
    assert facts["endless.ts"].problem == "hang"
    assert facts["endless.ts"].reason == (
        f"{endless}: nothing came for 0.5 seconds, so the process at it was killed; take it off the list"
    )
    assert [facts[f"{number}.mp4"].problem for number in range(4)] == [None] * 4


def test_what_has_not_changed_is_not_looked_into_again(tmp_path: Path) -> None:
    a, b = write_clip(tmp_path / "a.mp4"), write_clip(tmp_path / "b.mp4", count=30)
    journal = tmp_path / "check.jsonl"
    first = look(samples(a, b), journal=journal)
    for path in (a, b):  # spoilt, but a keeps its size and time
        times = path.stat()
        path.write_bytes(bytes(times.st_size))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + (path == b)))
    second = look(samples(a, b), journal=journal)
    assert second["a.mp4"] == first["a.mp4"]
    assert second["b.mp4"].problem == "unreadable"


def test_a_deeper_look_and_a_digest_need_a_new_one(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    journal = tmp_path / "check.jsonl"
    look(samples(path), depth="open", journal=journal)
    look(samples(path), depth="open", journal=journal)
    look(samples(path), depth="all", journal=journal)
    look(samples(path), depth="places", journal=journal)
    assert [json.loads(line)["depth"] for line in journal.read_text().splitlines()] == ["open", "all"]
    copy = tmp_path / "b.mp4"
    copy.write_bytes(path.read_bytes())
    facts = look(samples(path, copy), digests=True, journal=journal)
    assert facts["a.mp4"].digest == facts["b.mp4"].digest is not None


def test_a_torn_journal_costs_its_last_line_only(tmp_path: Path) -> None:
    a, b = write_clip(tmp_path / "a.mp4"), write_clip(tmp_path / "b.mp4", count=30)
    journal = tmp_path / "check.jsonl"
    first = look(samples(a, b), journal=journal)
    journal.write_bytes(journal.read_bytes()[:-20])
    assert look(samples(a, b), journal=journal) == first
    lines = journal.read_text().splitlines()
    assert len(lines) == 3
    assert {json.loads(line)["name"] for line in (lines[0], lines[2])} == {str(a), str(b)}


def test_what_may_have_been_the_machines_fault_is_looked_at_again(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    journal = tmp_path / "check.jsonl"
    look(samples(path), journal=journal)
    entry = json.loads(journal.read_text())
    journal.write_text(json.dumps({**entry, "problem": "crash", "reason": "out of memory"}) + "\n")
    assert look(samples(path), journal=journal)["a.mp4"].problem is None
