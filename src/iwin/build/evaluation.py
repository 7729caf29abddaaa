"""The evaluation of a split."""

from collections.abc import Sequence

from accelerate import Accelerator

from iwin.build.data import build_annotations, build_normalize, build_sampler, build_transform
from iwin.config import schema
from iwin.data.annotations import Annotations
from iwin.data.datasets import VideoDataset
from iwin.data.loader import ShardBatches, make_loader
from iwin.engine.evaluate import Evaluation
from iwin.errors import ConfigError


def build_evaluation(
    config: schema.RunConfig, split: schema.SplitSettings, annotations: Annotations, accelerator: Accelerator
) -> Evaluation:
    """The evaluation of a split, its videos shared out over the processes."""
    if "mean_average_precision" in config.evaluation.metrics and not split.multi_class:
        raise ConfigError("mean_average_precision is for lists with several labels a video, which this split is not")
    if any(isinstance(step, schema.Flip) and step.label_map for step in split.transforms):
        raise ConfigError("a Flip that changes labels (flip_label_map) is for training; leave it out of val and test")
    dataset = VideoDataset(annotations.samples, sampler=build_sampler(split.sampling), transform=build_transform(split))
    batches = ShardBatches(
        len(dataset),
        batch_size=split.batch_size,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    return Evaluation(
        loader=make_loader(
            dataset, batches, num_workers=split.num_workers, pin_memory=accelerator.device.type == "cuda"
        ),
        annotations=annotations,
        normalize=build_normalize(split.normalize),
        average=config.test.average_clips,
        max_views=config.test.max_testing_views,
        metrics=config.evaluation.metrics,
        topk=config.evaluation.topk,
    )


def build_test(config: schema.RunConfig, *, classes: Sequence[str] | None, accelerator: Accelerator) -> Evaluation:
    """The multi-view test of a run's test split."""
    if config.data.test is None:
        raise ConfigError("data.test is missing: testing needs a test split")
    annotations = build_annotations(config.data.test, name="test", classes=classes)
    return build_evaluation(config, config.data.test, annotations, accelerator)
