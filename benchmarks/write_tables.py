"""Put the records of `iwin bench model` and `benchmarks/multi_view_test.py` into docs/performance.md.

    python benchmarks/write_tables.py

Every `<!-- record: NAME -->` … `<!-- end -->` there becomes the table of benchmarks/results/NAME.json, and every
`<!-- multi-view: NAME NAME -->` … `<!-- end -->` that of several, so that no figure in the document is typed by hand.
The charts of all records are drawn anew, too, beside them and in docs/images.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from iwin.bench.charts import draw_charts, models
from iwin.bench.report import device, mebibytes, spread, variables
from iwin.bench.session import summary
from iwin.bench.variants import baseline, find_variant

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
RESULTS = ROOT / "benchmarks" / "results"

SPREAD = "Median (minimum to maximum) over the rounds."

Row = dict[str, str]
"""A row of a table by its columns' headers."""


def fill(text: str) -> str:
    """The document with all tables as the records have them."""
    pattern = re.compile(r"(<!-- (record|multi-view): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda match: match[1] + section(match[2], match[3].split()) + match[4], text)


def section(kind: str, names: Sequence[str]) -> str:
    """What stands between the two comments: a table with all that must stand beside its figures."""
    paths = [RESULTS / f"{name}.json" for name in names]
    if not all(path.exists() for path in paths):
        return "\nNot measured yet.\n\n"
    records = [json.loads(path.read_text()) for path in paths]
    if kind == "record":
        return table_of(records[0])
    return markdown([views_row(record) for record in records], f"{about(records)} {SPREAD}")


def table_of(record: Mapping[str, Any]) -> str:
    """A record of `iwin bench model`; bare matrix products stand below the table."""
    peaks = ", ".join(f"{name} {rate:,.0f}" for name, rate in record["matmul_gmacs_per_second"].items())
    rows = [row(name, record) for name in models(record)]
    return markdown(rows, f"{about([record])} Matrix product, GMAC/s: {peaks}. {SPREAD}")


def markdown(rows: Sequence[Row], caption: str) -> str:
    """A table without the columns that are empty in all rows."""
    used = [column for column in rows[0] if any(row[column] for row in rows)]
    header = f"| {' | '.join(heading(column, rows) for column in used)} |\n| --- |{' ---: |' * (len(used) - 1)}"
    lines = [f"| {' | '.join(row[column] for column in used)} |" for row in rows]
    return "\n".join(["", header, *lines, "", caption, "", ""])


def heading(column: str, rows: Sequence[Row]) -> str:
    """A column's header, which speaks of shares only if there are some."""
    return column if any(", " in row[column] for row in rows) else column.partition(", share")[0]


def row(name: str, record: Mapping[str, Any]) -> Row:
    """A variant of a record of `iwin bench model`."""
    told = record["variants"][name]
    same = baseline(find_variant(name))
    measured = "clips_per_second" in told
    share = told.get("share_of_matmul")
    return {
        "variant": name,
        "clips/s": spread(told["clips_per_second"], to=" to ") if measured else told["error"],
        "times the reference in the same precision": spread(told.get(f"times_{same}"), to=" to "),
        "times the reference in fp32": spread(told.get("times_reference-fp32"), to=" to "),
        "peak memory, share of the reference's": size(told.get("peak_bytes"), told.get(f"memory_of_{same}")),
        "whole process, share": whole_process(name, record),
        "kept for backward, share": size(told.get("saved_bytes"), told.get(f"saved_of_{same}")),
        "of matmul": "" if share is None else f"{100 * share:.0f} %",
    }


def size(found: int | None, share: float | None) -> str:
    """Bytes for people, and what share they are of the reference's."""
    return mebibytes(found) + (f", {share:.2f}" if found and share else "")


def whole_process(name: str, record: Mapping[str, Any]) -> str:
    """The most that a variant's process took during a pass; on GPUs, and where not all variants tell it, nothing."""
    found = {
        name: told.get("process_peak_bytes") for name, told in models(record).items() if "clips_per_second" in told
    }
    if record["machine"]["gpu"] or not all(found.values()) or name not in found:
        return ""
    base = found.get(baseline(find_variant(name)) or "")
    return size(found[name], found[name] / base if base else None)


def views_row(record: Mapping[str, Any]) -> Row:
    """A record of `benchmarks/multi_view_test.py`, whose command says which videos were made."""
    options = dict(pairwise(record["command"].split()))
    return {
        "videos": f"{options['--count']} of {options['--size']}",
        "times the loop": spread(summary(record["ratios"]["loop"]), to=" to "),
        "limit": "" if record["machine"]["gpu"] else spread(summary(record["limit"]), to=" to "),
        "times one video at a time": spread(summary(record["ratios"]["workers"]), to=" to "),
    }


def about(records: Sequence[Mapping[str, Any]]) -> str:
    """Commands, dates, machines and versions; those that records share once."""
    commands: dict[str, list[str]] = {}
    for record in records:
        machine = record["machine"]
        where = f"{device(machine)} ({' '.join(machine['cpu_flags'])})"
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        setting = f"{record['date'][:10]}, {where}, Python {machine['python']}, {versions}."
        assignments = [f"{name}={value}" for name, value in variables(record).items()]
        commands.setdefault(setting, []).append(f"`{' '.join([*assignments, record['command']])}`")
    return " ".join(f"{', '.join(given)}, {setting}" for setting, given in commands.items())


def draw(text: str) -> None:
    """The charts of all records, beside them, and those of growth that the document shows, as docs/images/NAME.png."""
    for path in RESULTS.glob("*.json"):
        record = json.loads(path.read_text())
        if "variants" in record:
            draw_charts(record, RESULTS, path.stem)
    IMAGES.mkdir(exist_ok=True)
    for name in re.findall(r"\(images/(\S+)\.png\)", text):
        shutil.copyfile(RESULTS / f"{name}_growth.png", IMAGES / f"{name}.png")


if __name__ == "__main__":
    document = fill(DOCUMENT.read_text())
    DOCUMENT.write_text(document)
    draw(document)
