"""`iwin tool eval_metric`: the figures of a score file, without scoring again."""

import argparse
import re
from pathlib import Path

from iwin.cli.common import add_config_options, add_metric_options, check_test_metrics, metric_options, print_figures


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
    from iwin.engine.evaluate import figures, label_array
    from iwin.engine.scores import as_scores, read_scores
    from iwin.errors import ConfigError

    config, _ = load_run_config(args.config, [*args.cfg_options, *metric_options(args)])
    check_test_metrics(config)
    rows = read_scores(args.results)
    split = config.data.test
    if split is None:
        raise ConfigError("data.test is missing: it says which videos were scored")
    if split.ann_file is not None:
        numbers = 1 + split.with_offset if split.frames else 0
        labels = list_labels(split.ann_file, several=split.multi_class, numbers=numbers)
    else:
        labels = [sample.labels for sample in build_annotations(split, name="test").samples]
    array = label_array(labels, num_classes=rows.shape[1] if split.multi_class else None)
    scores = as_scores(rows, array, source=args.results)
    found = figures(scores, metrics=config.evaluation.metrics, topk=config.evaluation.topk)
    print_figures({**found, "fingerprint": "not told by score files; by iwin test and in its --report"})
    return 0


def list_labels(path: str | Path, *, several: bool = False, numbers: int = 0) -> list[tuple[int, ...]]:
    """The labels of a list file; its videos need not be on this machine.

    Args:
        path: the list.
        several: whether a line can end in several labels.
        numbers: how many numbers stand between a path and its labels, in lists of frame folders.

    Raises:
        DataError: if the list cannot be read, or a line does not end in a label.
    """
    from iwin.errors import DataError

    line_pattern = re.compile(r".+?(?P<numbers>((\s*,\s*|\s+)\d+)+)" if several else r".+?(?P<numbers>(,|\s)\s*\d+)")
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list cannot be read ({error})") from None
    labels = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            match = line_pattern.fullmatch(line.strip())
            found = re.findall(r"\d+", match["numbers"])[numbers if several else 0 :] if match else []
            if not found:
                raise DataError(f"{path}:{number}: expected `path label`, found {line.strip()!r}")
            labels.append(tuple(map(int, found)))
    return labels
