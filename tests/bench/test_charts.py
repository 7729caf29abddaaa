from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from iwin.bench.charts import draw_charts
from iwin.bench.report import table

RECORD: dict[str, Any] = {
    "matmul_gmacs_per_second": {"fp32": 100.0},
    "variants": {
        name: {
            "clips_per_second": {"median": speed, "min": 0.9 * speed, "max": 1.1 * speed},
            "peak_bytes": 2**28,
            "saved_bytes": None,
            "gmacs_per_second": 50.0,
            "share_of_matmul": 0.5,
            "difference": 1e-6,
            "times_reference-fp32": {"median": speed, "min": speed, "max": speed},
            "memory_of_reference-fp32": 0.25,
        }
        for name, speed in (("reference-fp32", 1.0), ("fp32", 2.5), ("swin3d_t-fp32", 2.0))
    }
    | {"bf16": {"error": "differs"}},
    "growth": {
        "frames": [
            {"variant": name, "frames": frames, "seconds": 0.1 * frames, "peak_bytes": peak and peak * frames}
            for name, peak in (("reference-fp32", 2**20), ("fp32", 2**19), ("fp32-openvino", None))
            for frames in (4, 8)
        ]
    },
}


@pytest.mark.parametrize(("growth", "kinds"), [(True, ["speed", "memory", "growth"]), (False, ["speed", "memory"])])
def test_charts_are_written(growth: bool, kinds: list[str], tmp_path: Path) -> None:
    paths = draw_charts(RECORD if growth else {**RECORD, "growth": {}}, tmp_path, "name")
    assert [path.name for path in paths] == [f"name_{kind}.png" for kind in kinds]
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert len(image.convert("L").getcolors(256) or []) > 10  # something is drawn


def test_table_has_a_row_for_every_variant_and_the_reason_for_what_was_not_measured() -> None:
    found = table(RECORD)
    assert found.row_count == 4
    assert list(found.columns[0].cells) == ["reference-fp32", "fp32", "swin3d_t-fp32", "bf16"]
    assert list(found.columns[1].cells)[1:] == ["2.5 (2.25-2.75)", "2 (1.8-2.2)", "differs"]
