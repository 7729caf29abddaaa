"""`iwin tool eval_metric`: the figures of a score file, without scoring again."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from iwin.cli.common import add_config_options, add_metric_options, check_metrics, metric_options, print_figures

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def add_parser(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the tool."""
    parser = tools.add_parser("eval_metric", help="figures of a score file", description="Figures of a score file.")
    parser.add_argument("config", metavar="CONFIG", help="the config whose data.test was scored")
    parser.add_argument("results", metavar="RESULTS", help="what iwin test --out or upstream's test.py wrote")
    add_metric_options(parser)
    add_config_options(parser, "--options")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the figures."""
    from iwin.build import build_annotations
    from iwin.config import load_run_config
    from iwin.engine.evaluate import figures
    from iwin.engine.scores import as_scores, read_scores
    from iwin.errors import ConfigError

    config, _ = load_run_config(args.config, [*args.cfg_options, *metric_options(args)])
    check_metrics(config)
    rows = read_scores(args.results)
    split = config.data.test
    if split is None:
        raise ConfigError("data.test is missing: it says which videos were scored")
    if split.ann_file is not None:
        labels = list_labels(split.ann_file)
    else:
        labels = as_labels([sample.label for sample in build_annotations(split, name="test").samples])
    scores = as_scores(rows, labels, source=args.results)
    print_figures(figures(scores, metrics=config.evaluation.metrics, topk=config.evaluation.topk))
    return 0


def list_labels(path: str | Path) -> "npt.NDArray[np.int64]":
    """The labels of a list file; its videos need not be on this machine.

    Raises:
        DataError: if the list cannot be read, or a line does not end in a label.
    """
    from iwin.data.annotations import LIST_LINE
    from iwin.errors import DataError

    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list cannot be read ({error})") from None
    labels = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            match = LIST_LINE.fullmatch(line.strip())
            if match is None:
                raise DataError(f"{path}:{number}: expected `path label`, found {line.strip()!r}")
            labels.append(int(match["label"]))
    return as_labels(labels)


def as_labels(labels: list[int]) -> "npt.NDArray[np.int64]":
    """Labels as metrics take them."""
    import numpy as np

    return np.array(labels, dtype=np.int64)
