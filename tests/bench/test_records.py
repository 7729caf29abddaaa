"""The performance page says what the records say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tables_are_those_of_the_records() -> None:
    fill = runpy.run_path(str(ROOT / "benchmarks" / "write_tables.py"))["fill"]
    text = (ROOT / "docs" / "performance.md").read_text()
    assert "<!-- record: " in text
    assert fill(text) == text, "run python benchmarks/write_tables.py"
