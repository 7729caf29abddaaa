"""The evaluation of a split."""

from collections.abc import Sequence

from accelerate import Accelerator

from iwin.build.data import build_annotations, build_dataset, build_loader, build_normalize
from iwin.config import schema
from iwin.data.annotations import Annotations
from iwin.data.batches import ShardBatches
from iwin.engine.evaluate import VIEWS_AT_ONCE, Evaluation
from iwin.errors import ConfigError
from iwin.models.recognizer import Average


def build_evaluation(
    config: schema.RunConfig,
    split: schema.SplitSettings,
    annotations: Annotations,
    accelerator: Accelerator,
    *,
    name: str,
    num_classes: int,
) -> Evaluation:
    """The evaluation of a split, its videos shared out over the processes."""
    check_metrics(config.evaluation, split, name=name)
    if any(isinstance(step, schema.Flip) and step.label_map for step in split.transforms):
        raise ConfigError("a Flip that changes labels (flip_label_map) is for training; leave it out of val and test")
    dataset = build_dataset(split, annotations, num_classes=num_classes)
    # One video at a time comes from the decoder processes; `engine.views` puts the views of several together.
    batches = ShardBatches(len(dataset), batch_size=1, rank=accelerator.process_index, world=accelerator.num_processes)
    return Evaluation(
        loader=build_loader(config, split, dataset, batches, accelerator=accelerator),
        annotations=annotations,
        split=name,
        normalize=build_normalize(split.normalize),
        average=view_average(config),
        max_views=config.test.max_testing_views or max(VIEWS_AT_ONCE, split.batch_size),
        metrics=config.evaluation.metrics,
        topk=config.evaluation.topk,
        num_classes=dataset.num_classes,
    )


def view_average(config: schema.RunConfig) -> Average:
    """How a video's score comes of its views' logits."""
    average = config.test.average_clips or "prob"
    return "sigmoid" if average == "prob" and config.model.loss == "binary_cross_entropy" else average


def check_metrics(settings: schema.EvaluationSettings, split: schema.SplitSettings, *, name: str) -> None:
    """Refuse figures that a split cannot have.

    Raises:
        ConfigError: naming the figure.
    """
    for metric in settings.metrics:
        if (metric == "mean_average_precision") == split.multi_class:
            continue
        if split.multi_class:
            raise ConfigError(
                f"{metric} is for one label a video, but data.{name} has several (multi_class=True); choose "
                "mean_average_precision"
            )
        raise ConfigError(
            f"{metric} is for lists with several labels a video (data.{name}.multi_class=True), which this split is "
            "not; choose top_k_accuracy or mean_class_accuracy"
        )


def build_test(
    config: schema.RunConfig, *, classes: Sequence[str] | None, num_classes: int, accelerator: Accelerator
) -> Evaluation:
    """The multi-view test of a run's test split."""
    if config.data.test is None:
        raise ConfigError("data.test is missing: testing needs a test split")
    annotations = build_annotations(config.data.test, name="test", classes=classes)
    annotations.check_labels(num_classes)
    return build_evaluation(config, config.data.test, annotations, accelerator, name="test", num_classes=num_classes)
