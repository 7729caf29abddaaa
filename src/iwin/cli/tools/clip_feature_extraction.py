"""`iwin tool clip_feature_extraction`: the pooled features of each listed video."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import add_config_options, add_device_options, console, output_file
from iwin.cli.launch import add_launch_options, join_processes

if TYPE_CHECKING:
    from iwin.data.annotations import Sample

SUFFIXES = (".pkl", ".npy", ".json")


def add_parser(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the tool."""
    parser = tools.add_parser(
        "clip_feature_extraction",
        help="features of videos",
        description="Write one vector a video: the features before the classifier, averaged over the test's views.",
    )
    parser.add_argument("config", metavar="CONFIG", help="a config file, or the name of one that comes with iwin")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="weights: .safetensors or the authors' .pth")
    parser.add_argument("--video-list", required=True, metavar="LIST", help="a path a line; labels are passed over")
    parser.add_argument("--video-root", default="", metavar="DIR", help="folder that the paths are relative to")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="a list of vectors (.pkl, .json) or an array (.npy), in list order"
    )
    add_device_options(parser)
    add_config_options(parser)
    add_launch_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the features; videos that cannot be decoded are named and have NaN, or null in .json."""
    out = output_file(args.out, SUFFIXES)
    join_processes(args)

    from dataclasses import replace

    from iwin.build import build_accelerator, build_evaluation, load_trained, slow_precision
    from iwin.config import load_run_config
    from iwin.data.annotations import Annotations
    from iwin.engine.bad_files import BadFiles
    from iwin.engine.evaluate import check_scores, score
    from iwin.engine.log import RunLog
    from iwin.engine.scores import write_scores
    from iwin.errors import ConfigError, DataError

    config, notes = load_run_config(args.config, args.cfg_options)
    if config.data.test is None:
        raise ConfigError("data.test is missing: its pipeline says how videos are looked at")
    accelerator = build_accelerator(config, precision=args.precision, cpu=args.cpu)
    log = RunLog(None, console(accelerator))
    for note in [*notes, *slow_precision(accelerator.device, accelerator.mixed_precision)]:
        log.say(f"note: {note}")
    annotations = Annotations(read_paths(args.video_list, Path(args.video_root)), None, Path(args.video_list))
    trained = load_trained(args.checkpoint, config=config)
    split = config.data.test.model_copy(update={"multi_class": False})  # labels are passed over
    evaluation = build_evaluation(
        config, split, annotations, accelerator, name="test", num_classes=trained.model.num_classes
    )
    evaluation = replace(evaluation, features=True)
    model = trained.model.to(accelerator.device)
    found = score(model, evaluation, accelerator=accelerator, log=log)
    BadFiles(None, log).tell("test", evaluation.loader.bad)
    if not found.decoded.any():
        raise DataError(f"{args.video_list}: {evaluation.loader.bad.complaint()}")
    check_scores(found, annotations.samples)
    if accelerator.is_main_process:
        write_scores(out, found.scores)
        count, channels = found.scores.shape
        print(f"wrote {out}: {found.decoded.sum()} of {count} videos, {channels} features each")
    accelerator.end_training()
    return 0


def read_paths(path: str, root: Path) -> "tuple[Sample, ...]":
    """The videos of a list, with or without labels.

    Raises:
        DataError: if the list cannot be read or is empty.
    """
    from iwin.data.annotations import LIST_LINE, Sample
    from iwin.errors import DataError

    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list cannot be read ({error})") from None
    samples = []
    for line in filter(None, map(str.strip, lines)):
        labelled = LIST_LINE.fullmatch(line)
        # A name may end in a number of its own, such as "clip 5".
        name = labelled["path"] if labelled and not (root / line).exists() else line
        samples.append(Sample(str(root / name), (0,)))
    if not samples:
        raise DataError(f"{path}: the list names no video")
    return tuple(samples)
