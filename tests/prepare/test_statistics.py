"""A data set in figures."""

from pathlib import Path

import pytest
from PIL import Image

from iwin.cli.data.common import size_unit
from iwin.cli.data.info import panels_of
from iwin.data.annotations import Annotations, Sample
from iwin.prepare.probe import VideoFacts
from iwin.prepare.splits import Split
from iwin.prepare.statistics import Spread, Statistics, measure
from iwin.viz.histograms import Panel, draw_histograms


@pytest.fixture
def statistics() -> Statistics:
    samples = tuple(Sample(f"{number}.mp4", labels) for number, labels in enumerate([(0,), (0, 2), (2,), (0,)]))
    facts = {
        f"{number}.mp4": VideoFacts(
            f"{number}.mp4",
            size=1000 * (number + 1),
            container="mov,mp4,m4a",
            codec="h264" if number else "vp9",
            height=100 + number,
            width=200,
            num_frames=10 * (number + 1),
            duration=36.0,
            fps=25.0,
        )
        for number in range(3)
    }
    facts["3.mp4"] = VideoFacts("3.mp4", size=7, problem="unreadable")
    split = Split("train", Annotations(samples, ("x", "y", "z"), "train.txt"), Path())
    return measure(split, facts)


def test_videos_are_counted_and_measured(statistics: Statistics) -> None:
    assert (statistics.videos, statistics.bad, statistics.classes) == (4, 1, 3)
    assert statistics.per_class == {"x": 3, "y": 0, "z": 2}
    assert statistics.labels_per_video == 1.25
    assert statistics.hours == pytest.approx(0.03)
    assert statistics.num_bytes == 6007
    assert statistics.codecs == {"h264": 2, "vp9": 1}
    assert statistics.containers == {"mov": 3}
    assert statistics.sizes == {"200x100": 1, "200x101": 1, "200x102": 1}
    assert statistics.values["short_side"] == [100, 101, 102]
    assert statistics.values["keyframe_interval"] == []


def test_the_figures_for_json_hold_spreads(statistics: Statistics) -> None:
    figures = statistics.to_dict()
    assert figures["measures"]["num_frames"] == {"minimum": 10, "median": 20, "maximum": 30}
    assert "keyframe_interval" not in figures["measures"]
    assert "values" not in figures


def test_spreads() -> None:
    assert Spread.of([4, 1, 2, 3]) == Spread(1, 2.5, 4)
    assert Spread.of([]) is None


def test_histograms_are_drawn(tmp_path: Path) -> None:
    panels = [
        Panel("videos of a class", "classes", {"train": [1, 2, 2], "val": [5]}),
        Panel("frames", "videos", {"train": [25.0] * 4, "val": [25.0]}),
        Panel("nothing", "videos", {"train": [], "val": []}),
    ]
    draw_histograms(panels, tmp_path / "a.png", title="three")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        assert len(set(picture.convert("RGB").resize((200, 120)).get_flattened_data())) > 20


def test_sizes_are_drawn_in_the_unit_of_the_largest(statistics: Statistics) -> None:
    (panel,) = (panel for panel in panels_of([statistics]) if panel.measured == "kB of a video")
    assert panel.values == {"train": [1.0, 2.0, 3.0]}
    sizes = {0: ("B", 1), 999: ("B", 1), 1000: ("kB", 1000), 10**9: ("GB", 10**9), 10**16: ("TB", 10**12)}
    assert {count: size_unit(count) for count in sizes} == sizes
