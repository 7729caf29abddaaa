"""The videos of a split that could not be read: each once, and how many of them are too many."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Policy = Literal["error", "skip", "resample"]
"""What becomes of a video that cannot be read.

"resample": in training another video, drawn at random, takes its place; in testing, where each video counts once, it is
skipped. "skip": it is left out of its batch. "error": the first one ends the run.
"""

NAMED = 10
"""Bad videos that an error names."""


@dataclass(frozen=True)
class BadVideo:
    """A video that could not be read.

    Attributes:
        path: where it is.
        reason: the sentence that says why, path included.
    """

    path: str
    reason: str


class BadVideos:
    """The bad videos of a split, each once however often it was met.

    Args:
        size: videos in the split.
        policy: what becomes of them.
        max_share: the largest share of the split that may be bad, 0 .. 1. One bad video passes in any split, unless the
            share is 0.
    """

    def __init__(self, size: int, *, policy: Policy = "resample", max_share: float = 0.01) -> None:
        self.size, self.policy, self.max_share = size, policy, max_share
        self._reasons: dict[str, str] = {}
        self._untold: list[BadVideo] = []

    def __len__(self) -> int:
        return len(self._reasons)

    def __contains__(self, path: str) -> bool:
        return path in self._reasons

    def __iter__(self) -> Iterator[BadVideo]:
        return (BadVideo(path, reason) for path, reason in self._reasons.items())

    def add(self, video: BadVideo) -> None:
        """Remember a video, to be told of unless it is known."""
        if video.path not in self:
            self._reasons[video.path] = video.reason
            self._untold.append(video)

    def reason(self, path: str) -> str:
        """Why one of them could not be read."""
        return self._reasons[path]

    def learn(self, videos: Iterable[BadVideo]) -> list[BadVideo]:
        """Remember videos of which other processes or an earlier run told; those that were news."""
        news = [video for video in videos if video.path not in self]
        self._reasons |= {video.path: video.reason for video in news}
        return news

    def take_new(self) -> list[BadVideo]:
        """The videos added since the last call."""
        new, self._untold = self._untold, []
        return new

    @property
    def limit(self) -> int:
        """How many may be bad."""
        if self.policy == "error" or self.max_share == 0:
            return 0
        return max(int(self.max_share * self.size), 1)

    @property
    def exceeded(self) -> bool:
        """Whether there are too many."""
        return len(self) > self.limit

    def complaint(self) -> str:
        """Why there are too many, naming the first of them."""
        named = "".join(f"\n  {reason}" for reason in list(self._reasons.values())[:NAMED])
        more = f"\n  … and {len(self) - NAMED} more" if len(self) > NAMED else ""
        allowed = (
            "and none is allowed (data.bad_videos.policy or max_share says so)"
            if self.limit == 0
            else f"more than the {self.limit} allowed (data.bad_videos.max_share={self.max_share:g})"
        )
        return (
            f"{len(self)} of {self.size} videos could not be read, {allowed}: mend them or take them off the list"
            f":{named}{more}"
        )
