"""Growth: what is measured, and what is told of the rounds."""

from collections.abc import Sequence
from typing import Any

import pytest

from iwin.bench.growth import measure_growth
from iwin.bench.session import Entry
from iwin.bench.subjects import Job

MIDDLE = Job("fp32", frames=16, height=112, width=112)


def test_points_tell_their_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Job] = []

    def measure(jobs: Sequence[Job], *, rounds: int, **_: Any) -> list[Entry]:
        asked.extend(jobs)
        takes = [[0.5], [0.25, 0.25, 9.0], [1.0]][:rounds]
        return [Entry(job, facts={"clips": job.batch, "peak_bytes": 7}, rounds=takes) for job in jobs]

    monkeypatch.setattr("iwin.bench.growth.FACTORS", {"frames": (0.25, 1), "pixels": (2,), "batch": ()})
    monkeypatch.setattr("iwin.bench.growth.measure", measure)
    found = measure_growth(MIDDLE, ["fp32"], rounds=3, say=lambda _: None)
    assert [(job.frames, job.height, job.width) for job in asked] == [(4, 112, 112), (16, 112, 112), (16, 224, 224)]
    assert found["frames"][0] == {
        "variant": "fp32",
        "frames": 4,
        "size": "112",
        "seconds": 0.5,
        "seconds_min": 0.25,
        "seconds_max": 1.0,
        "peak_bytes": 7,
    }


def test_what_cannot_run_is_said_and_has_no_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(jobs: Sequence[Job], **_: Any) -> list[Entry]:
        return [Entry(job, error="no memory") for job in jobs]

    monkeypatch.setattr("iwin.bench.growth.FACTORS", {"frames": (1,), "pixels": (), "batch": ()})
    monkeypatch.setattr("iwin.bench.growth.measure", measure)
    said: list[str] = []
    assert measure_growth(MIDDLE, ["fp32"], rounds=3, say=said.append)["frames"] == []
    assert "fp32 is not timed: no memory" in said
