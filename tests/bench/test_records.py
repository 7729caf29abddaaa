"""The performance page says what the records say."""

import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

TWICE = {"median": 2.0, "min": 2.0, "max": 2.0}

TOLD = {
    "clips_per_second": TWICE,
    "times_reference-fp32": TWICE,
    "memory_of_reference-fp32": 0.25,
    "peak_bytes": 2**20,
    "process_peak_bytes": 2**30,
    "saved_bytes": None,
    "share_of_matmul": None,
}

RECORD: dict[str, Any] = {
    "command": "iwin bench model",
    "date": "2026-11-26",
    "machine": {
        "gpu": None,
        "cpu": "a CPU",
        "threads": 2,
        "cpu_flags": ["avx2"],
        "python": "3.11",
        "versions": {"torch": "2"},
    },
    "matmul_gmacs_per_second": {"fp32": 100.0},
    "variants": {
        "reference-fp32": {
            "clips_per_second": TWICE,
            "peak_bytes": 2**22,
            "process_peak_bytes": 2**31,
            "saved_bytes": None,
        },
        "fp32": TOLD,
        "bf16": TOLD,
        "fp32-sdpa": {"error": "differs"},
        "matmul-fp32": TOLD,
    },
}


def script(name: str) -> Any:
    """A function of benchmarks/write_tables.py."""
    return runpy.run_path(str(ROOT / "benchmarks" / "write_tables.py"))[name]


def test_tables_are_those_of_the_records() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    assert "<!-- record: " in text
    assert "<!-- multi-view: " in text
    assert script("fill")(text) == text, "run python benchmarks/write_tables.py"


def test_tables_have_no_empty_columns_and_no_matrix_products() -> None:
    header, _, *rows = script("table_of")(RECORD).split("\n\n")[0].strip().splitlines()
    assert header.strip("| ").split(" | ") == [
        "variant",
        "clips/s",
        "times the reference in the same precision",
        "times the reference in fp32",
        "peak memory, share of the reference's",
        "whole process, share",
    ]
    assert [row.split(" | ")[0] for row in rows] == ["| reference-fp32", "| fp32", "| bf16", "| fp32-sdpa"]
    assert rows[-1] == "| fp32-sdpa | differs |  |  |  |  |"
    alone = RECORD | {"variants": {"reference-fp32": RECORD["variants"]["reference-fp32"]}}
    assert "| variant | clips/s | peak memory | whole process |" in script("table_of")(alone)


def test_a_reference_in_another_precision_does_not_stand_for_its_own() -> None:
    row = script("row")
    twice = "2 (2 to 2)"
    assert list(row("fp32", RECORD).values())[2:6] == [twice, twice, "1 MiB, 0.25", "1,024 MiB, 0.50"]
    assert list(row("bf16", RECORD).values())[2:6] == ["", twice, "1 MiB", "1,024 MiB"]


def test_whole_processes_are_told_on_cpus_and_of_all_or_none() -> None:
    whole_process = script("whole_process")
    gpu = RECORD["machine"] | {"gpu": {"name": "a GPU"}}
    assert whole_process("fp32", RECORD | {"machine": gpu}) == ""
    lacking = {name: told for name, told in TOLD.items() if name != "process_peak_bytes"}
    assert whole_process("fp32", RECORD | {"variants": RECORD["variants"] | {"bf16": lacking}}) == ""


def test_records_share_what_is_the_same_and_commands_have_their_variables() -> None:
    other = RECORD | {"environment": {"MALLOC_MMAP_MAX_": "0"}}
    told = script("about")([RECORD, other])
    assert told == (
        "`iwin bench model`, `MALLOC_MMAP_MAX_=0 iwin bench model`, 2026-11-26, a CPU, 2 threads (avx2), "
        "Python 3.11, torch 2."
    )
    assert script("about")([RECORD, other | {"date": "2026-11-27"}]).count("torch 2.") == 2


def test_views_have_a_row_a_record() -> None:
    views = {
        "command": "python multi_view_test.py --size 64x48 --count 2",
        "machine": RECORD["machine"],
        "ratios": {"loop": [1.0, 3.0, 2.0], "workers": [1.5]},
        "limit": [2.5],
    }
    row = script("views_row")
    assert list(row(views).values()) == ["2 of 64x48", "2 (1 to 3)", "2.5 (2.5 to 2.5)", "1.5 (1.5 to 1.5)"]
    assert row(views | {"machine": {"gpu": {"name": "a GPU"}}})["limit"] == ""
