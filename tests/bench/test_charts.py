from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from iwin.bench import charts
from iwin.bench.charts import draw_charts
from iwin.bench.report import table
from iwin.bench.subjects import Job
from iwin.bench.variants import VARIANTS, find_variant

JOB = asdict(Job("fp32", batch=2))

RECORD: dict[str, Any] = {
    "date": "2026-11-26T07:35:57Z",
    "machine": {"gpu": None, "cpu": "a CPU", "threads": 2},
    "matmul_gmacs_per_second": {"fp32": 100.0},
    "variants": {
        name: {
            "job": JOB,
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
    | {"bf16": {"job": JOB, "error": "differs"}},
    "growth": {
        "frames": [
            {"variant": name, "frames": frames, "seconds": 0.1 * frames, "peak_bytes": peak and peak * frames}
            for name, peak in (("reference-fp32", 2**20), ("fp32", 2**19), ("fp32-openvino", None))
            for frames in (4, 8)
        ]
    },
}


@pytest.mark.parametrize(
    ("growth", "kinds"), [(True, ["speed", "memory", "rate", "growth"]), (False, ["speed", "memory", "rate"])]
)
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
    assert list(found.columns[0].cells) == ["reference-fp32", "fp32", "swin3d_t-fp32, 16 x 224 x 224", "bf16"]
    assert list(found.columns[1].cells)[1:] == ["2.5 (2.25-2.75)", "2 (1.8-2.2)", "differs"]


def words(figure: Any) -> list[str]:
    """All that is written in a figure."""
    from matplotlib.text import Text

    figure.draw_without_rendering()  # labels of ticks are written then
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_a_chart_says_what_was_measured_where_and_when() -> None:
    for draw in (charts.speed, charts.memory, charts.rate):
        title = draw(RECORD).get_suptitle()
        assert title == "iwin_tiny, inference, 2 clips of 32 x 224 x 224 at once\na CPU, 2 threads, 2026-11-26"
    assert "growth around 2 clips of 32 x 224 x 224 at once" in charts.growth(RECORD).get_suptitle()


def test_a_title_names_the_variables_that_matter() -> None:
    kept = {"MALLOC_MMAP_MAX_": "0", "IWIN_NATIVE": "0"}
    title = charts.speed(RECORD | {"environment": kept}).get_suptitle()
    assert title.splitlines()[1] == "a CPU, 2 threads, 2026-11-26, with MALLOC_MMAP_MAX_, IWIN_NATIVE"
    assert charts.speed(RECORD | {"environment": {}}).get_suptitle() == charts.speed(RECORD).get_suptitle()


def test_a_chart_of_rates_tells_shares_of_the_matrix_product() -> None:
    panel = charts.rate(RECORD).axes[0]
    texts = [text.get_text() for text in panel.texts]
    assert [bar.get_extents().x1 > bar.get_extents().x0 for bar in panel.patches] == [True, True, True, False]
    assert texts == ["50 %", "50 %", "50 %", "not measured"]
    alone = {name: told | {"share_of_matmul": None} for name, told in RECORD["variants"].items()}
    assert not any("%" in text for text in words(charts.rate(RECORD | {"variants": alone})))


def test_records_without_rates_have_no_chart_of_them(tmp_path: Path) -> None:
    variants = {
        name: {key: value for key, value in told.items() if key != "gmacs_per_second"}
        for name, told in RECORD["variants"].items()
    }
    paths = draw_charts(RECORD | {"variants": variants, "growth": {}}, tmp_path, "name")
    assert [path.name for path in paths] == ["name_speed.png", "name_memory.png"]


def test_large_numbers_have_separators() -> None:
    large = {name: told | {"peak_bytes": 70_000 * 2**20} for name, told in RECORD["variants"].items()}
    assert "70,000" in words(charts.memory(RECORD | {"variants": large}))


def test_a_chart_has_a_legend_and_marks_clips_of_another_size() -> None:
    said = words(charts.speed(RECORD))
    assert {"the plain model, fp32", "Iwin, fp32", "other authors' model, fp32", "clips of another size"} <= set(said)
    assert "swin3d_t-fp32, 16 x 224 x 224" in said
    assert "not measured" in said  # bf16
    alike = {name: told | {"job": JOB | {"frames": 16}} for name, told in RECORD["variants"].items()}
    said = words(charts.speed(RECORD | {"variants": alike}))
    assert "swin3d_t-fp32" in said
    assert "clips of another size" not in said


def test_a_chart_of_memory_says_who_tells_none() -> None:
    openvino = RECORD["variants"]["fp32"] | {"peak_bytes": None}
    said = words(charts.memory(RECORD | {"variants": RECORD["variants"] | {"fp32-openvino": openvino}}))
    assert "not told: it takes its memory once and keeps it" in said


def test_no_two_lines_of_growth_look_the_same_and_bars_have_their_colours() -> None:
    ours = [variant for variant in VARIANTS if variant.family in ("iwin", "reference")]
    assert len({(charts.colour(variant), charts.MARKERS[variant.how]) for variant in ours}) == len(ours)
    bar = charts.speed(RECORD).axes[0].patches[0].get_facecolor()
    line = charts.growth(RECORD).axes[0].lines[0]
    assert bar == line.get_color() == charts.colour(find_variant("reference-fp32"))


def test_growth_shows_the_rounds_where_they_are_told_and_cuts_no_marker() -> None:
    assert not charts.growth(RECORD).axes[0].collections
    points = [
        point | {"seconds_min": 0.9 * point["seconds"], "seconds_max": 3 * point["seconds"]}
        for point in RECORD["growth"]["frames"]
    ]
    figure = charts.growth(RECORD | {"growth": {"frames": points}})
    assert len(figure.axes[0].collections) == 3
    assert "seconds a clip\nshaded: all rounds" in words(figure)
    for panel, values in zip(figure.axes, ([0.36, 2.4], [2.0, 8.0]), strict=True):  # seconds; MiB, on round numbers
        least, most = panel.get_ylim()
        assert least < min(values)
        assert most > max(values)


@pytest.mark.parametrize(("least", "most"), [(0.09, 0.35), (0.3, 0.3), (1, 1000), (22, 1040), (200, 300)])
def test_an_axis_has_ticks_around_and_between_its_values(least: float, most: float) -> None:
    marks = charts.round_numbers(least, most)
    assert len(marks) >= 2
    assert marks[0] <= least
    assert marks[-1] >= most
    assert all(b / a <= 2.5001 for a, b in pairwise(marks))


def test_matrix_products_alone_have_no_chart(tmp_path: Path) -> None:
    variants = {"matmul-fp32": RECORD["variants"]["fp32"]}
    assert draw_charts(RECORD | {"variants": variants, "growth": {}}, tmp_path, "name") == []
