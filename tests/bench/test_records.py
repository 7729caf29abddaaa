"""The performance page says what the records say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tables_are_those_of_the_records() -> None:
    fill = runpy.run_path(str(ROOT / "benchmarks" / "write_tables.py"))["fill"]
    text = (ROOT / "docs" / "performance.md").read_text()
    assert "<!-- record: " in text
    assert fill(text) == text, "run python benchmarks/write_tables.py"


def test_a_reference_in_another_precision_does_not_stand_for_its_own() -> None:
    row = runpy.run_path(str(ROOT / "benchmarks" / "write_tables.py"))["row"]
    twice = {"median": 2.0, "min": 2.0, "max": 2.0}
    told = {
        "clips_per_second": twice,
        "times_reference-fp32": twice,
        "memory_of_reference-fp32": 0.25,
        "peak_bytes": 2**20,
        "saved_bytes": None,
        "share_of_matmul": None,
    }
    assert row("fp32", told).split(" | ")[2:5] == ["2 (2 to 2)", "2 (2 to 2)", "1 MiB, 0.25"]
    assert row("bf16", told).split(" | ")[2:5] == ["", "2 (2 to 2)", "1 MiB"]
