"""Growth: how many passes a turn has, and what is told of the rounds."""

from collections.abc import Sequence
from typing import Any

import pytest

from iwin.bench.growth import measure_growth, passes
from iwin.bench.session import Entry
from iwin.bench.subjects import Job

MIDDLE = Job("fp32", frames=16, height=112, width=112)


@pytest.mark.parametrize(
    ("changed", "seconds", "expected"),
    [
        ({}, 0.25, 4),
        ({"frames": 4}, 0.25, 16),
        ({"batch": 2}, 0.25, 2),
        ({"height": 224, "width": 224}, 0.25, 1),
        ({"frames": 64}, 2.0, 1),
        ({"iterations": 5}, 2.0, 5),
    ],
)
def test_passes_fill_a_turn(changed: dict[str, int], seconds: float, expected: int) -> None:
    assert passes(Job(**{**vars(MIDDLE), **changed}), MIDDLE, seconds) == expected


def test_points_tell_their_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def measure(jobs: Sequence[Job], *, rounds: int, **_: Any) -> list[Entry]:
        asked.extend((job.frames, job.iterations) for job in jobs)
        takes = [[0.5], [0.25, 0.25, 9.0], [1.0]][:rounds]
        return [Entry(job, facts={"clips": job.batch, "peak_bytes": 7}, rounds=takes) for job in jobs]

    monkeypatch.setattr("iwin.bench.growth.FACTORS", {"frames": (0.25, 1), "pixels": (), "batch": ()})
    monkeypatch.setattr("iwin.bench.growth.measure", measure)
    found = measure_growth(MIDDLE, ["fp32"], rounds=3, say=lambda _: None)
    assert asked == [(16, 1), (4, 8), (16, 2)]
    assert found["frames"][0] == {
        "variant": "fp32",
        "frames": 4,
        "size": "112",
        "iterations": 8,
        "seconds": 0.5,
        "seconds_min": 0.25,
        "seconds_max": 1.0,
        "peak_bytes": 7,
    }


def test_a_middle_that_cannot_run_is_taken_to_fill_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def measure(jobs: Sequence[Job], **_: Any) -> list[Entry]:
        asked.extend(job.iterations for job in jobs)
        return [Entry(job, error="no memory") for job in jobs]

    monkeypatch.setattr("iwin.bench.growth.FACTORS", {"frames": (1,), "pixels": (), "batch": ()})
    monkeypatch.setattr("iwin.bench.growth.measure", measure)
    said: list[str] = []
    assert measure_growth(MIDDLE, ["fp32"], rounds=3, say=said.append)["frames"] == []
    assert asked == [1, 1]
    assert "fp32 is not timed: no memory" in said
