"""What a trained model sees in a video."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from iwin.build import Trained, build_normalize, build_reader, device_named, load_trained, view_average
from iwin.data.annotations import Sample
from iwin.data.bad_videos import BadVideo
from iwin.data.batches import ShardBatches
from iwin.data.datasets import Batch, Key, VideoDataset, collate
from iwin.data.loader import BatchLoader
from iwin.errors import ConfigError
from iwin.models.lanes import Layout, run_views
from iwin.models.recognizer import average_views, check_finite


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of a video, best first.

    Attributes:
        path: the video.
        classes: class names, or their numbers as text where the model knows no names.
        labels: class numbers.
        scores: scores; within 0 .. 1 unless the config averages logits.
        views: views that the scores are averaged over.
    """

    path: str
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    scores: tuple[float, ...]
    views: int


class Predictor:
    """A trained model with the test pipeline that belongs to it.

    Args:
        trained: the model, or its checkpoint file; a file that carries no config is loaded by `build.load_trained`.
        device: where to run; None takes a GPU where there is one.
        dtype: of weights and activations; torch.bfloat16 is faster where the hardware has it. The model that is given
            is turned into it.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
        ConfigError: if its config does not say how videos are looked at, or if there is no such device.
    """

    def __init__(
        self,
        trained: Trained | str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not isinstance(trained, Trained):
            trained = load_trained(trained)
        split = trained.config.data.test or trained.config.data.val
        if split is None:
            raise ConfigError("the config has neither data.test nor data.val, which say how the model looks at a video")
        self.device = device_named(device)
        self.model = trained.model.to(self.device, dtype)
        names = trained.classes or ()
        numbers = range(len(names), self.model.num_classes)  # a model may have more classes than its data had names for
        self.classes = (*names, *map(str, numbers))
        self._average = view_average(trained.config)
        self._time_limit = trained.config.data.bad_videos.time_limit
        self._max_views = trained.config.test.max_testing_views
        self._reader = build_reader(split)
        self._normalize = partial(build_normalize(split.normalize), dtype=dtype)

    def predict(self, path: str | Path, *, topk: int = 5) -> Prediction:
        """Classify a video file or an address.

        It is read in this process, where nothing can be done about a decoder that hangs or crashes; see `predict_each`.

        Raises:
            VideoError: if the file cannot be decoded.
            ConfigError: if `topk` is below 1.
            ModelError: if the model's scores are no numbers.
        """
        sample = Sample(str(path), (0,))
        return self._classify(sample, collate([self._reader.read(Key(epoch=0, video=0), sample)]), topk)

    def predict_each(self, paths: Sequence[str | Path], *, topk: int = 5) -> Iterator[Prediction | BadVideo]:
        """Classify video files or addresses, in their order; those that cannot be read are given with the reason.

        A process reads the next ones while the model works on one. If it dies, or nothing comes of it for the time that
        the config grants (`data.bad_videos.time_limit`), another goes on with the next video.

        Raises:
            ConfigError, ModelError: as `predict`.
        """
        samples = [Sample(str(path), (0,)) for path in paths]
        loader = BatchLoader(
            VideoDataset(samples, self._reader),
            ShardBatches(len(samples), batch_size=1),
            num_workers=1,
            time_limit=self._time_limit,
            pin_memory=self.device.type == "cuda",
        )
        for sample, batch in zip(samples, loader, strict=True):
            if len(batch):
                yield self._classify(sample, batch, topk)
            else:
                yield BadVideo(sample.path, loader.bad.reason(sample.path))

    def _classify(self, sample: Sample, batch: Batch, topk: int) -> Prediction:
        """The classes of a batch of one video."""
        if topk < 1:
            raise ConfigError(f"topk is {topk}; it takes a number of classes from 1 up")
        views = batch.views_on(self.device).flatten(0, 1)
        at_once = min(len(views), self._max_views or len(views))
        layout = Layout.on(self.device, at_once, model=self.model, total=len(views))
        rows = run_views(lambda chunk: self.model(self._normalize(chunk)), views, layout)
        scores = average_views(rows, len(views), average=self._average)[0]
        check_finite(scores, sample.path)
        best = scores.topk(min(topk, len(scores)))
        labels = tuple(best.indices.tolist())
        return Prediction(
            path=sample.path,
            classes=tuple(self.classes[label] for label in labels),
            labels=labels,
            scores=tuple(best.values.tolist()),
            views=len(views),
        )
