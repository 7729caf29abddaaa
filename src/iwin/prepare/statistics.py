"""A data set in figures."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iwin.prepare.probe import VideoFacts
from iwin.prepare.splits import Split

MEASURES = {
    "duration": "seconds of a video",
    "fps": "frames per second",
    "num_frames": "frames of a video",
    "short_side": "short side in pixels",
    "size": "bytes of a video",
    "keyframe_interval": "frames from keyframe to keyframe",
}
"""What is measured of every video, in words."""


@dataclass(frozen=True)
class Spread:
    """How values lie.

    Attributes:
        minimum: the smallest.
        median: the middle one, or the mean of the two in the middle.
        maximum: the largest.
    """

    minimum: float
    median: float
    maximum: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """The spread of some values; None if there are none."""
        known = sorted(values)
        return cls(known[0], statistics.median(known), known[-1]) if known else None


@dataclass(frozen=True)
class Statistics:
    """A split in figures; of videos that cannot be opened only the number is known.

    Attributes:
        name: of the split.
        videos: how many lines there are.
        bad: how many of their files cannot be opened.
        classes: how many classes there are.
        per_class: videos of each class, by its name or number, in the order of the labels.
        labels_per_video: of lists with several labels a video, their mean; else 1.
        hours: of all videos.
        num_bytes: of all videos.
        values: of each measure in `MEASURES`, the value of every video that has one.
        codecs: videos by codec.
        containers: videos by file format, its first name where FFmpeg has several.
        sizes: videos by "<width>x<height>".
    """

    name: str
    videos: int
    bad: int
    classes: int
    per_class: Mapping[str, int]
    labels_per_video: float
    hours: float
    num_bytes: int
    values: Mapping[str, Sequence[float]]
    codecs: Mapping[str, int]
    containers: Mapping[str, int]
    sizes: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The figures for JSON: spreads in the place of all values."""
        spreads = {name: Spread.of(values) for name, values in self.values.items()}
        return {
            **{name: value for name, value in vars(self).items() if name != "values"},
            "measures": {name: vars(spread) for name, spread in spreads.items() if spread is not None},
        }


def measure(split: Split, facts: Mapping[str, VideoFacts]) -> Statistics:
    """The figures of a split.

    Args:
        split: the split.
        facts: what its files are, by the samples' keys.
    """
    found = [facts[sample.key] for sample in split.samples]
    good = [video for video in found if video.num_frames is not None]
    names = split.annotations.classes or tuple(map(str, range(split.annotations.num_classes)))
    counts = Counter(label for sample in split.samples for label in sample.labels)
    return Statistics(
        name=split.name,
        videos=len(found),
        bad=len(found) - len(good),
        classes=len(names),
        per_class={name: counts[label] for label, name in enumerate(names)},
        labels_per_video=round(sum(counts.values()) / len(found), 6),
        hours=round(sum(video.duration or 0.0 for video in good) / 3600, 6),
        num_bytes=sum(video.size or 0 for video in found),
        values={name: [value for video in good if (value := _value(video, name)) is not None] for name in MEASURES},
        codecs=_counts(video.codec for video in good),
        containers=_counts(video.container and video.container.partition(",")[0] for video in good),
        sizes=_counts(f"{video.width}x{video.height}" for video in good),
    )


def _value(video: VideoFacts, name: str) -> float | None:
    if name == "short_side":
        return None if video.height is None or video.width is None else min(video.height, video.width)
    value: float | None = getattr(video, name)
    return value


def _counts(words: Iterable[str | None]) -> dict[str, int]:
    """How often each word occurs, the most frequent first."""
    return dict(Counter(word for word in words if word is not None).most_common())
