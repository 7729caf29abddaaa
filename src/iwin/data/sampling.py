"""Which frames of a video make its clips: index arithmetic, no video.

The rules, roundings included, are those of the original Video Iwin Transformer's `SampleFrames` (its published scores
rest on them); letters below: N frames in the video, T = clip_len, s = frame_interval, K = num_clips.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from iwin.errors import VideoError

Indices = npt.NDArray[np.int64]
Offsets = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FrameSampler:
    """Map the length of a video to the frame numbers of its clips.

    Dense sampling (the default) takes K clips of T frames, s frames apart; a clip spans T * s frames. Uniform sampling
    cuts the whole video into T segments and takes one frame from each.

    Attributes:
        clip_len: Frames in a clip (T).
        frame_interval: Distance between neighbouring frames of a clip (s); uniform sampling does not use it.
        num_clips: Clips taken from a video (K). Uniform sampling gives one clip whatever this says, as the original
            does.
        temporal_jitter: Move every frame by a random 0 .. s - 1.
        twice_sample: In test mode, also take the K clips that start at the segments' beginnings: 2 * K clips.
        out_of_bound: What stands for frames past the end: the video from its start again ("loop"), or the last frame
            of the clip that exists ("repeat_last").
        uniform: One frame from each of T equal segments of the video.
        test_mode: Fixed, centred offsets instead of random ones.
        start_index: Number of the first frame, added to all indices (frame folders count from 1).
    """

    clip_len: int = 32
    frame_interval: int = 1
    num_clips: int = 1
    temporal_jitter: bool = False
    twice_sample: bool = False
    out_of_bound: Literal["loop", "repeat_last"] = "loop"
    uniform: bool = False
    test_mode: bool = False
    start_index: int = 0

    def __post_init__(self) -> None:
        # frame_interval is not among them: the published Something-Something recipe sets one beside uniform sampling
        if self.uniform:
            idle = {
                "num_clips": self.num_clips != 1,
                "temporal_jitter": self.temporal_jitter,
                "twice_sample": self.twice_sample,
                "out_of_bound": self.out_of_bound != "loop",
            }
            mode = "with uniform sampling, which takes one clip from the whole video"
        else:
            idle = {"twice_sample": self.twice_sample and not self.test_mode}
            mode = "outside test mode"
        without_effect = [name for name, is_set in idle.items() if is_set]
        if without_effect:
            warnings.warn(f"sampling settings without effect {mode}: {', '.join(without_effect)}", stacklevel=3)

    @property
    def is_random(self) -> bool:
        """Whether two calls with the same length can differ, so that a call needs a generator."""
        return not self.test_mode or (self.temporal_jitter and not self.uniform)

    def __call__(self, num_frames: int, rng: np.random.Generator | None = None) -> Indices:
        """Choose the frames.

        Args:
            num_frames: Frames in the video (N), at least 1.
            rng: Source of the random offsets; only needed where `is_random`.

        Returns:
            Frame numbers of shape (clips, T), each within start_index .. start_index + N - 1.

        Raises:
            VideoError: The video has no frames.
            ValueError: The settings are random and there is no generator.
        """
        if num_frames < 1:
            raise VideoError(f"a video of {num_frames} frames gives no clip: at least one frame is needed")
        if self.is_random and rng is None:
            raise ValueError("these sampling settings draw random offsets: pass a numpy Generator as rng")
        indices = self._uniform(num_frames, rng) if self.uniform else self._dense(num_frames, rng)
        return indices + self.start_index

    def _uniform(self, num_frames: int, rng: np.random.Generator | None) -> Indices:
        """One frame from each of T segments whose borders are rounded half to even: middle, or a random one."""
        borders = np.rint((num_frames - 1) / self.clip_len * np.arange(self.clip_len + 1)).astype(np.int64)
        start, end = borders[:-1], borders[1:]
        if self.test_mode:
            return ((start + end) // 2)[None]
        assert rng is not None
        return rng.integers(start, end, endpoint=True)[None]

    def _dense(self, num_frames: int, rng: np.random.Generator | None) -> Indices:
        """T frames, s apart, from each clip's offset."""
        if self.test_mode:
            offsets = self._centred_offsets(num_frames)
        else:
            assert rng is not None
            offsets = self._random_offsets(num_frames, rng)
        # Offsets can be fractions (see twice_sample): they are cut to whole frames only after the bounds are kept.
        frames = offsets[:, None] + np.arange(self.clip_len) * self.frame_interval
        if self.temporal_jitter:
            assert rng is not None
            frames += rng.integers(self.frame_interval, size=frames.shape)
        if self.out_of_bound == "loop":
            frames = np.mod(frames, num_frames)
        else:
            inside = frames < num_frames
            last = np.max(np.where(inside, frames, 0), axis=1, keepdims=True)
            frames = np.where(inside, frames, last)
        return frames.astype(np.int64)

    def _centred_offsets(self, num_frames: int) -> Offsets:
        """Centres of K equal segments of the possible starts; all 0 where the video is shorter than a clip."""
        starts = num_frames - self.clip_len * self.frame_interval + 1
        if starts <= 0:
            return np.zeros(self.num_clips)
        step = starts / self.num_clips
        begins = np.arange(self.num_clips) * step
        centres = np.trunc(begins + step / 2)
        return np.concatenate([centres, begins]) if self.twice_sample else centres

    def _random_offsets(self, num_frames: int, rng: np.random.Generator) -> Offsets:
        """A random start in each of K equal segments, or the nearest to it that a short video allows."""
        starts = num_frames - self.clip_len * self.frame_interval + 1
        step = starts // self.num_clips
        clips = np.arange(self.num_clips)
        if step > 0:
            return (clips * step + rng.integers(step, size=self.num_clips)).astype(np.float64)
        if num_frames > max(self.num_clips, self.clip_len * self.frame_interval):
            return np.sort(rng.integers(starts, size=self.num_clips)).astype(np.float64)
        if step == 0:
            return np.rint(clips * (starts / self.num_clips))
        return np.zeros(self.num_clips)
