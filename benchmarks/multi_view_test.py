"""Speed of the 4x3 test protocol: the views of many videos in full chunks, against loops that feed one video at a time.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/multi_view_test.py --size 340x256 --count 12 --out multi_view_test.json

The variable is what the `iwin` command sets: threads of the model that wait must not spin on the decoders' cores.

All variants score the same videos with the same weights, and their scores must agree before their times mean anything:

- loop: open, decode, transform and score one video, then the next; nothing runs beside anything else;
- workers: decoder processes read ahead, the model gets one video at a time, at most `max_testing_views` of its views at
  once (the authors' way);
- stream: what `iwin test` does.

Each round runs every variant once; the ratios of a round compare neighbours in time. On a CPU, decoders and model share
the cores: "limit" is how many times faster the loop would be if its work kept all cores busy all the time.
"""

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from rich.console import Console

from iwin.bench.footage import make_footage
from iwin.bench.machine import describe_machine
from iwin.bench.scripts import count, run, width_height
from iwin.build import build_accelerator, build_annotations, build_evaluation, build_model
from iwin.config import load_run_config
from iwin.config.schema import RunConfig, SplitSettings
from iwin.engine.evaluate import Evaluation, score
from iwin.engine.log import RunLog
from iwin.files import check_writable, save_json
from iwin.models.recognizer import IwinRecognizer

Scores = npt.NDArray[np.float32]


def score_video_by_video(model: IwinRecognizer, evaluation: Evaluation, accelerator: Accelerator) -> Scores:
    """Scores (videos, classes) by a loop over batches of one video."""
    rows: dict[int, Scores] = {}
    with torch.inference_mode():
        for batch in evaluation.loader:
            with accelerator.autocast():
                scores = model.forward_views(
                    batch.views.to(accelerator.device),
                    max_views=evaluation.max_views,
                    prepare=evaluation.normalize,
                )
            rows[int(batch.indices)] = scores[0].float().cpu().numpy()
    return np.stack([rows[index] for index in sorted(rows)])


def variants(config: RunConfig, split: SplitSettings, *, cpu: bool) -> dict[str, Callable[[], Scores]]:
    """What is measured, by name."""
    torch.manual_seed(0)
    accelerator = build_accelerator(config, cpu=cpu)
    annotations = build_annotations(split, name="test")
    model = build_model(config.model, num_classes=annotations.num_classes).to(accelerator.device).eval()
    log = RunLog(None, Console(file=io.StringIO()))

    def evaluation(**changes: int) -> Evaluation:
        changed = split.model_copy(update=changes)
        classes = annotations.num_classes
        return build_evaluation(config, changed, annotations, accelerator, name="test", num_classes=classes)

    alone, workers, stream = evaluation(batch_size=1, num_workers=0), evaluation(batch_size=1), evaluation()
    return {
        "loop": lambda: score_video_by_video(model, alone, accelerator),
        "workers": lambda: score_video_by_video(model, workers, accelerator),
        "stream": lambda: score(model, stream, accelerator=accelerator, log=log).scores,
    }


def measure(ways: dict[str, Callable[[], Scores]], *, rounds: int) -> tuple[dict[str, list[float]], list[float], float]:
    """Seconds of each variant in each round, the loop's processor seconds, and the largest difference of scores.

    Round 0 is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    loop_work: list[float] = []  # the loop does all of its work in this process
    apart = 0.0
    for round_ in range(rounds + 1):
        scores = {}
        for name, way in ways.items():
            begun, worked = time.perf_counter(), time.process_time()
            scores[name] = way()
            if round_:
                seconds[name].append(time.perf_counter() - begun)
                if name == "loop":
                    loop_work.append(time.process_time() - worked)
        apart = max(apart, *(float(np.abs(one - scores["loop"]).max()) for one in scores.values()))
    return seconds, loop_work, apart


def make_videos(folder: Path, size: tuple[int, int], number: int) -> Path:
    """A folder of class folders of videos of 10 s; the size is width and height."""
    width, height = size
    for seed in range(number):
        path = folder / f"class_{seed % 2}" / f"{seed}.mp4"
        path.parent.mkdir(exist_ok=True)
        make_footage(path, height=height, width=width, seed=seed)
    return folder


def main() -> None:
    """Measure, print and optionally store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of class folders (default: some made for this)")
    parser.add_argument("--size", type=width_height, default="340x256", help="WIDTHxHEIGHT of those that are made")
    parser.add_argument("--count", type=count, default=12, help="how many are made")
    parser.add_argument("--config", default="iwin_nano_16x4x112_folders")
    parser.add_argument("--max-views", type=count, default=4, help="views at once, of one video or of several")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    if args.out:
        check_writable(args.out)
    with tempfile.TemporaryDirectory() as made:
        videos = args.videos or make_videos(Path(made), args.size, args.count)
        options = [f"data.test.data_prefix={videos}", f"model.test_cfg.max_testing_views={args.max_views}"]
        config, _ = load_run_config(args.config, options)
        assert config.data.test is not None
        ways = variants(config, config.data.test, cpu=args.cpu)
        seconds, loop_work, apart = measure(ways, rounds=args.rounds)
    if apart > 1e-4:
        sys.exit(f"the scores differ by {apart:.2g}: the times would mean nothing")
    ratios = {
        name: [base / own for base, own in zip(seconds[name], seconds["stream"], strict=True)]
        for name in ("loop", "workers")
    }
    limit = [
        lasted / (worked / torch.get_num_threads()) for lasted, worked in zip(seconds["loop"], loop_work, strict=True)
    ]
    for name, values in seconds.items():
        print(f"{name:8} {statistics.median(values):.2f} s ({min(values):.2f} .. {max(values):.2f})")
    for name, values in ratios.items():
        print(f"{name} / stream: {statistics.median(values):.2f} ({min(values):.2f} .. {max(values):.2f})")
    if args.cpu or not torch.cuda.is_available():
        print(f"limit: {statistics.median(limit):.2f} ({min(limit):.2f} .. {max(limit):.2f})")
    print(f"largest difference of scores: {apart:.1e}")
    if args.out:
        record = {
            "command": f"OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', '')} python {' '.join(sys.argv)}",
            "date": date.today().isoformat(),
            "machine": describe_machine(),
            "seconds": seconds,
            "ratios": ratios,
            "limit": limit,
            "largest_difference": apart,
        }
        save_json(args.out, record)


if __name__ == "__main__":
    run(main)
