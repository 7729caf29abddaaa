"""`iwin test`: score a test split with many views a video."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import (
    SCORE_SUFFIXES,
    add_config_options,
    add_device_options,
    add_metric_options,
    check_test_metrics,
    console,
    idle_options,
    metric_options,
    output_file,
    print_figures,
    split_options,
)
from iwin.cli.launch import add_launch_options, join_processes
from iwin.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from iwin.build import Trained
    from iwin.config import RunConfig
    from iwin.data.annotations import Annotations
    from iwin.engine.evaluate import Scores
    from iwin.engine.log import RunLog

IDLE = {
    "fuse_conv_bn": "the model has no batch normalisation",
    "gpu_collect": "scores are gathered in memory, every video's once",
    "tmpdir": "scores are gathered in memory, every video's once",
}


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser("test", help="score a test split", description="Test a recogniser.")
    parser.add_argument("config", metavar="CONFIG", help="a config file, or the name of one that comes with iwin")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="weights: a file, URL or Hub id")
    add_metric_options(parser)
    parser.add_argument(
        "--out", metavar="FILE", help="write a list with the scores of each video, as upstream does: .pkl, .yaml, .json"
    )
    parser.add_argument("--report", metavar="FILE", help="write figures, classes, paths, labels and scores: .json")
    parser.add_argument(
        "--bad-files",
        metavar="FILE",
        help="name videos that cannot be read, in lines of JSON (default: bad_files.jsonl, beside --report or --out if "
        "given)",
    )
    parser.add_argument("--average-clips", choices=["prob", "score"], help="mean of the views' softmax or logits")
    parser.add_argument(
        "--data",
        metavar="PLACE",
        help="folder of class folders or list file to test on, or the address of one; overrules the config",
    )
    add_device_options(parser)
    add_config_options(parser)
    add_launch_options(parser)
    old = parser.add_argument_group("accepted for upstream's commands")
    old.add_argument("--fuse-conv-bn", action="store_true", help=f"no effect: {IDLE['fuse_conv_bn']}")
    old.add_argument("--gpu-collect", action="store_true", help=f"no effect: {IDLE['gpu_collect']}")
    old.add_argument("--tmpdir", metavar="DIR", help="no effect, likewise")
    old.add_argument("--onnx", action="store_true", help="not available yet")
    old.add_argument("--tensorrt", action="store_true", help="not available yet")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score the split and print the figures on standard output."""
    if args.onnx or args.tensorrt:
        raise ConfigError(
            f"--{'onnx' if args.onnx else 'tensorrt'}: exported models cannot be tested yet; give a checkpoint"
        )
    out = output_file(args.out, SCORE_SUFFIXES) if args.out else None
    report = output_file(args.report, [".json"]) if args.report else None
    bad_files = bad_files_path(args)
    join_processes(args)

    from iwin.build import build_accelerator, load_trained, slow_precision
    from iwin.config import load_run_config
    from iwin.engine.log import RunLog
    from iwin.engine.scores import write_scores

    data = split_options("test", args.data) if args.data else []
    config, notes = load_run_config(args.config, [*data, *args.cfg_options, *metric_options(args)])
    if args.average_clips:
        test = config.test.model_copy(update={"average_clips": args.average_clips})
        config = config.model_copy(update={"test": test})
    check_test_metrics(config)
    accelerator = build_accelerator(config, precision=args.precision, cpu=args.cpu)
    log = RunLog(None, console(accelerator))
    slow = slow_precision(accelerator.device, accelerator.mixed_precision)
    for note in [*notes, *idle_options(args, IDLE), *slow]:
        log.say(f"note: {note}")
    trained = load_trained(args.checkpoint, config=config)
    tested = test_split(trained, config, accelerator=accelerator, log=log, bad_files=bad_files, compiled=args.compile)
    if accelerator.is_main_process:
        if out:
            write_scores(out, tested.scores.scores)
        if report:
            write_report(report, tested)
        print_figures({**tested.figures, "fingerprint": tested.fingerprint})
    accelerator.end_training()
    return 0


def bad_files_path(args: argparse.Namespace) -> Path:
    """Where bad videos are named: where the command line says, beside what it has written, or here."""
    if args.bad_files:
        return output_file(args.bad_files, [".jsonl"])
    beside = args.report or args.out
    return (Path(beside).parent if beside else Path()) / "bad_files.jsonl"


@dataclass(frozen=True)
class Tested:
    """What a test found out.

    Attributes:
        annotations: the videos.
        scores: their scores.
        figures: what these amount to.
        fingerprint: of the videos; the same on equal data.
    """

    annotations: "Annotations"
    scores: "Scores"
    figures: dict[str, float]
    fingerprint: str


def test_split(
    trained: "Trained",
    config: "RunConfig",
    *,
    accelerator: "Accelerator",
    log: "RunLog",
    bad_files: Path,
    compiled: bool,
) -> Tested:
    """Score the test split of a run, and name the videos that could not be read, also in the file `bad_files`."""
    from iwin.build import build_test, compile_model, decoder_notes
    from iwin.data.fingerprint import fingerprint
    from iwin.engine.bad_files import BadFiles, read_bad_files
    from iwin.engine.evaluate import check_scores, evaluate

    classes = trained.model.num_classes
    evaluation = build_test(config, classes=trained.classes, num_classes=classes, accelerator=accelerator)
    if compiled:
        compile_model(trained.model, device=accelerator.device, log=log)
    for note in decoder_notes(config.data.test):
        log.say(note)
    for split, mark in trained.fingerprints.items():
        log.say(f"the checkpoint's data.{split} had the fingerprint {mark}")
    own = bad_files if accelerator.is_main_process else None
    # A training run may have named its bad videos in the same file.
    others = [file for file in read_bad_files(own) if file.split != "test"] if own else []
    scores, figures = evaluate(
        trained.model.to(accelerator.device),
        evaluation,
        accelerator=accelerator,
        log=log,
        bad_files=BadFiles(own, log, known=others),
    )
    check_scores(scores, evaluation.annotations.samples)
    decoder = evaluation.loader.dataset.reader.decoder
    mark = fingerprint(evaluation.annotations, decoder=decoder) if accelerator.is_main_process else ""
    return Tested(evaluation.annotations, scores, figures, mark)


def write_report(path: Path, tested: Tested) -> None:
    """Write {"figures": …, "fingerprint": …, "classes": …, "videos": [{"path", "labels", "scores"}]}.

    The scores of videos that could not be read are null.
    """
    from iwin.files import save_json

    rows = zip(tested.annotations.samples, tested.scores.scores, tested.scores.decoded, strict=True)
    videos = [
        {"path": sample.path, "labels": sample.labels, "scores": row.tolist() if decoded else None}
        for sample, row, decoded in rows
    ]
    content = {
        "figures": tested.figures,
        "fingerprint": tested.fingerprint,
        "classes": tested.annotations.classes,
        "videos": videos,
    }
    save_json(path, content)
