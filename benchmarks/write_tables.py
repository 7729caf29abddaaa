"""Put the records of `iwin bench model` into docs/performance.md.

    python benchmarks/write_tables.py

Every `<!-- record: NAME -->` … `<!-- end -->` there becomes the table of benchmarks/results/NAME.json, so that no
figure in the document is typed by hand. The charts of all records are drawn anew, too, beside them and in docs/images.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from iwin.bench.charts import draw_charts
from iwin.bench.report import device, mebibytes, spread
from iwin.bench.variants import baseline, find_variant

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
RESULTS = ROOT / "benchmarks" / "results"

COLUMNS = (
    "variant",
    "clips/s",
    "times the reference in the same precision",
    "times the reference in fp32",
    "peak memory, share of the reference's",
    "kept for backward, share",
    "of matmul",
)


def fill(text: str) -> str:
    """The document with all tables as the records have them."""
    pattern = re.compile(r"(<!-- record: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda match: match[1] + table_of(match[2]) + match[3], text)


def table_of(name: str) -> str:
    """A record as a Markdown table, with all that must stand beside its figures."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return "\nNot measured yet.\n\n"
    record = json.loads(path.read_text())
    header = f"| {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * (len(COLUMNS) - 1)}"
    rows = [row(name, told) for name, told in record["variants"].items()]
    return "\n".join(["", header, *rows, "", about(record), "", ""])


def row(name: str, told: dict[str, Any]) -> str:
    """A line of the table."""
    if "clips_per_second" not in told:
        return f"| {name} | {told['error']} | | | | | |"
    same = baseline(find_variant(name))
    memory, saved = told.get(f"memory_of_{same}"), told.get(f"saved_of_{same}")
    cells = [
        name,
        spread(told["clips_per_second"], to=" to "),
        spread(told.get(f"times_{same}"), to=" to "),
        spread(told.get("times_reference-fp32"), to=" to "),
        mebibytes(told["peak_bytes"]) + (f", {memory:.2f}" if memory else ""),
        mebibytes(told["saved_bytes"]) + (f", {saved:.2f}" if saved else ""),
        "" if told["share_of_matmul"] is None else f"{100 * told['share_of_matmul']:.0f} %",
    ]
    return f"| {' | '.join(cells)} |"


def about(record: dict[str, Any]) -> str:
    """Command, machine, versions and date."""
    machine = record["machine"]
    where = f"{device(machine)} ({' '.join(machine['cpu_flags'])})"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    peaks = ", ".join(f"{name} {rate:,.0f}" for name, rate in record["matmul_gmacs_per_second"].items())
    return (
        f"`{record['command']}`, {record['date'][:10]}, {where}, Python {machine['python']}, {versions}. "
        f"Matrix product, GMAC/s: {peaks}. Median (minimum to maximum) over the rounds."
    )


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
