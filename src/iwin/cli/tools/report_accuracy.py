"""`iwin tool report_accuracy`: figures of several score files together, such as of RGB and flow."""

import argparse
import sys

from iwin.cli.common import print_figures
from iwin.cli.tools.eval_metric import list_labels

METRICS = ("top_k_accuracy", "mean_class_accuracy")


def add_parser(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the tool."""
    parser = tools.add_parser(
        "report_accuracy", help="fuse score files", description="Figures of a weighted sum of score files."
    )
    parser.add_argument("--scores", nargs="+", required=True, metavar="FILE", help="score files of the same videos")
    parser.add_argument("--coefficients", nargs="+", type=float, metavar="W", help="their weights (default: all 1)")
    parser.add_argument("--datalist", required=True, metavar="LIST", help="list of the videos with their labels")
    parser.add_argument("--apply-softmax", action="store_true", help="turn each file's scores into probabilities first")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the figures of the sum, and on standard error those of each file."""
    import numpy as np

    from iwin.engine.evaluate import figures, label_array
    from iwin.engine.scores import as_scores, read_scores
    from iwin.engine.train import describe
    from iwin.errors import DataError

    weights = args.coefficients or [1.0] * len(args.scores)
    if len(weights) != len(args.scores):
        raise DataError(f"{len(args.scores)} score files need as many --coefficients, not {len(weights)}")
    labels = label_array(list_labels(args.datalist), num_classes=None)
    topk = (1, 5)
    total = np.zeros((1, 1), dtype=np.float64)
    for name, weight in zip(args.scores, weights, strict=True):
        scores = as_scores(read_scores(name), labels, source=name)
        print(f"{name}  {describe(figures(scores, metrics=METRICS, topk=topk))}", file=sys.stderr)
        rows = scores.scores.astype(np.float64)
        if args.apply_softmax:
            rows = np.exp(rows - rows.max(axis=1, keepdims=True))
            rows /= rows.sum(axis=1, keepdims=True)
        if total.size > 1 and total.shape != rows.shape:
            raise DataError(f"{name} holds scores of {rows.shape[1]} classes, {args.scores[0]} of {total.shape[1]}")
        total = total + weight * rows
    fused = as_scores(total.astype(np.float32), labels, source="the sum")
    print_figures(figures(fused, metrics=METRICS, topk=topk))
    return 0
