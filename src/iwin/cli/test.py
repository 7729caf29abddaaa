"""`iwin test`: score a test split with many views a video."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import (
    SCORE_SUFFIXES,
    add_config_options,
    add_device_options,
    add_metric_options,
    check_metrics,
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
    parser.add_argument("--average-clips", choices=["prob", "score"], help="mean of the views' softmax or logits")
    parser.add_argument(
        "--data", metavar="PATH", help="folder of class folders or list file to test on; overrules the config"
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
    join_processes(args)

    from iwin.build import build_accelerator, load_trained
    from iwin.config import load_run_config
    from iwin.engine.log import RunLog
    from iwin.engine.scores import write_scores

    data = split_options("test", Path(args.data)) if args.data else []
    config, notes = load_run_config(args.config, [*data, *args.cfg_options, *metric_options(args)])
    if args.average_clips:
        test = config.test.model_copy(update={"average_clips": args.average_clips})
        config = config.model_copy(update={"test": test})
    check_metrics(config)
    accelerator = build_accelerator(config, precision=args.precision, cpu=args.cpu)
    log = RunLog(None, console(accelerator))
    for note in [*notes, *idle_options(args, IDLE)]:
        log.say(f"note: {note}")
    trained = load_trained(args.checkpoint, config=config)
    annotations, scores, figures = test_split(trained, config, accelerator=accelerator, log=log)
    if accelerator.is_main_process:
        if out:
            write_scores(out, scores.scores)
        if report:
            write_report(report, annotations, scores, figures)
        print_figures(figures)
    accelerator.end_training()
    return 0


def test_split(
    trained: "Trained", config: "RunConfig", *, accelerator: "Accelerator", log: "RunLog"
) -> "tuple[Annotations, Scores, dict[str, float]]":
    """Score the test split of a run, and name the videos that could not be decoded."""
    from iwin.build import build_test
    from iwin.engine.evaluate import evaluate
    from iwin.engine.train import report_bad

    evaluation = build_test(config, classes=trained.classes, accelerator=accelerator)
    evaluation.annotations.check_labels(trained.model.num_classes)
    model = trained.model.to(accelerator.device)
    scores, figures = evaluate(model, evaluation, accelerator=accelerator, log=log)
    report_bad(log, scores.bad)
    return evaluation.annotations, scores, figures


def write_report(path: Path, annotations: "Annotations", scores: "Scores", figures: "dict[str, float]") -> None:
    """Write {"figures": …, "classes": …, "videos": [{"path", "label", "scores"}]}; scores of bad videos are null."""
    from iwin.files import save_json

    videos = [
        {"path": sample.path, "label": sample.label, "scores": row.tolist() if decoded else None}
        for sample, row, decoded in zip(annotations.samples, scores.scores, scores.decoded, strict=True)
    ]
    save_json(path, {"figures": figures, "classes": annotations.classes, "videos": videos})
