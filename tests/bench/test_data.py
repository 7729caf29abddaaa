"""`iwin bench data`: what is compared is the same, and the record says all."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from iwin.bench.data import Kind, Result, compared_with, describe, ratio
from iwin.bench.footage import make_footage, scene
from iwin.bench.pipelines import PATTERNS, Stopwatch, clip_reader, read_ours, samples
from iwin.cli.bench import data
from iwin.data.datasets import Key
from iwin.data.decode import open_video
from iwin.errors import ConfigError


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("footage") / "clip.mp4"
    return make_footage(path, height=72, width=96, num_frames=80)


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    data.add_parser(parser.add_subparsers())
    return parser.parse_args(["data", *argv])


def test_footage_moves(footage: Path) -> None:
    with open_video(footage) as video:
        assert (video.num_frames, video.height, video.width) == (80, 72, 96)
        first, last = video.get_frames([0, 79]).float()
    assert (first - last).abs().mean() > 10


def test_a_scene_is_the_same_every_time() -> None:
    once, again = (list(scene(36, 48, num_frames=3, noise=3.0, seed=1)) for _ in range(2))
    assert np.array_equal(once, again)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_what_is_timed_is_what_a_run_reads(footage: Path, pattern: object) -> None:
    chosen = next(found for found in PATTERNS if found is pattern)
    watch = Stopwatch()
    views = read_ours(str(footage), 3, watch, pattern=chosen, scaling="exact")
    sample = samples([str(footage)], 4)[3]
    assert torch.equal(views, clip_reader(chosen, "exact").read(Key(0, 3), sample).views)
    assert set(watch.seconds) == {"open", "seek", "decode", "convert", "resize"}


def test_a_stage_within_another_counts_once() -> None:
    watch = Stopwatch()
    start = time.perf_counter()
    with watch("outer"):
        with watch("inner"):
            time.sleep(0.01)
        with watch("inner"):
            pass
    assert watch.seconds["inner"] >= 0.01
    assert sum(watch.seconds.values()) <= time.perf_counter() - start


def test_ratios_are_taken_round_by_round(footage: Path) -> None:
    kind = Kind("small", (str(footage),))
    made = Kind("small, resized", (str(footage), str(footage)), made_from="small")
    stages = {"decode": 3.0, "convert": 1.0}
    ours = Result(kind, "train", "iwin", rounds=[1.0, 2.0, 1.0], clips=8, pipe_bytes=1, stages=stages)
    decord = Result(kind, "train", "decord", rounds=[2.0, 2.0, 3.0], clips=8, pipe_bytes=4, stages=stages)
    resized = Result(made, "train", "iwin", rounds=[0.5, 0.5, 0.5], clips=8, pipe_bytes=1, stages=stages)
    tested = Result(kind, "test", "decord", rounds=[9.0], clips=2, stages=stages)
    results = [ours, decord, resized, tested]
    assert ratio(ours, decord) == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert compared_with(ours, results) == {"decord": decord}
    assert compared_with(resized, results) == {"original": ours}
    assert compared_with(decord, results) == {}
    told = describe(ours, results)
    assert told["pipe_bytes_of_decord"] == told["outside_decode"] == 0.25
    assert describe(resized, results)["bytes_of_original"] == 2.0


def test_settings_that_cannot_be(footage: Path) -> None:
    with pytest.raises(ConfigError, match="--rounds takes numbers from 1 up"):
        data.run(arguments("--rounds", "0"))
    with pytest.raises(ConfigError, match="no reader 'torchvision'; choose from: iwin, iwin crop_first"):
        data.run(arguments("--readers", "torchvision", "--videos", str(footage)))
    with pytest.raises(ConfigError, match=r"record\.csv: the name of this file must end in \.json"):
        data.run(arguments("--json", "record.csv", "--videos", str(footage)))


@pytest.mark.slow
def test_the_verb(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    # A process of its own, since the verb binds its process to one core.
    result = subprocess.run(
        [
            *(sys.executable, "-m", "iwin", "bench", "data", "--videos", str(footage)),
            *("--readers", "iwin", "iwin swscale", "--resized", "--rounds", "2", "--clips", "4", "--json", str(out)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "clips/s" in result.stdout
    record = json.loads(out.read_text())
    assert record["command"].startswith("iwin bench data --videos")
    assert len(record["results"]) == 10  # two patterns; two readers of the original, one of each of its three versions
    for told in record["results"]:
        assert len(told["rounds_seconds"]) == 2
        assert told["clips_per_second"]["min"] > 0
    every = [told for told in record["results"] if "keyframes only" in told["videos"]]
    assert len(every) == 4
    assert all(told["times_original"]["median"] > 0 and told["bytes_of_original"] > 0 for told in every)
