"""`iwin test`: score a test split with many views a video."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import add_config_options, add_device_options, console

if TYPE_CHECKING:
    from iwin.data.annotations import Annotations
    from iwin.engine.evaluate import Scores

METRICS = ("top_k_accuracy", "mean_class_accuracy")


def add_parser(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the verb."""
    parser = verbs.add_parser("test", help="score a test split", description="Test a recogniser.")
    parser.add_argument("config", metavar="CONFIG", help="a config file, or the name of one that comes with iwin")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="weights: .safetensors or the authors' .pth")
    parser.add_argument("--eval", nargs="+", choices=METRICS, metavar="METRIC", help=f"figures: {', '.join(METRICS)}")
    parser.add_argument("--out", metavar="FILE", help="write scores, labels and figures to a .json file")
    parser.add_argument("--average-clips", choices=["prob", "score"], help="mean of the views' softmax or logits")
    parser.add_argument("--data", metavar="DIR", help="folder of class folders to test on, overrules the config")
    add_device_options(parser)
    add_config_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score the split and print the figures on standard output."""
    from iwin.build import build_accelerator, build_test, load_trained
    from iwin.config import load_run_config
    from iwin.engine.evaluate import evaluate
    from iwin.engine.log import RunLog
    from iwin.engine.train import report_bad
    from iwin.errors import ConfigError

    options = [f"data.test.data_prefix={args.data}", "data.test.ann_file=None"] if args.data else []
    config, notes = load_run_config(args.config, [*options, *args.cfg_options])
    if args.eval:
        config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"metrics": args.eval})})
    if args.average_clips:
        test = config.test.model_copy(update={"average_clips": args.average_clips})
        config = config.model_copy(update={"test": test})
    if args.out and Path(args.out).suffix != ".json":
        raise ConfigError(f"--out {args.out}: scores are written as .json")
    accelerator = build_accelerator(config, precision=args.precision, cpu=args.cpu)
    log = RunLog(None, console(accelerator))
    for note in notes:
        log.say(f"note: {note}")
    trained = load_trained(args.checkpoint, config=config)
    evaluation = build_test(config, classes=trained.classes, accelerator=accelerator)
    evaluation.annotations.check_labels(trained.model.num_classes)
    model = trained.model.to(accelerator.device)
    scores, result = evaluate(model, evaluation, accelerator=accelerator, log=log)
    report_bad(log, scores.bad)
    if accelerator.is_main_process:
        if args.out:
            write_scores(Path(args.out), evaluation.annotations, scores, result)
        for name, value in result.items():
            print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    return 0


def write_scores(path: Path, annotations: "Annotations", scores: "Scores", figures: Mapping[str, float]) -> None:
    """Write {"figures": …, "classes": …, "videos": [{"path", "label", "scores"}]}; scores of bad videos are null."""
    from iwin.checkpoint.io import save_json

    videos = [
        {"path": str(sample.path), "label": sample.label, "scores": row.tolist() if decoded else None}
        for sample, row, decoded in zip(annotations.samples, scores.scores, scores.decoded, strict=True)
    ]
    save_json(path, {"figures": dict(figures), "classes": annotations.classes, "videos": videos})
