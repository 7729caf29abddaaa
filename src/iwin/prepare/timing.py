"""How long training waits for the frames of a clip."""

import time
from collections.abc import Sequence

import numpy as np

from iwin.data.decode import open_video
from iwin.data.sampling import FrameSampler

_CLIP = FrameSampler(clip_len=32, frame_interval=2)
"""What the published recipes train on: 32 frames, 2 apart, from a random start."""

_ROUNDS = 3


def compare_decoding(pairs: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Time the training pattern on videos before and after a change.

    Every video is opened and read at the same random starts in both forms, in turns; of each start the fastest of three
    rounds counts.

    Args:
        pairs: paths before and after; both have the same frames.

    Returns:
        Seconds of processor time a video, before and after.
    """
    sums = np.zeros(2)
    for number, pair in enumerate(pairs):
        rounds = [[_decode(path, seed=number) for path in pair] for _ in range(_ROUNDS)]
        sums += np.min(rounds, axis=0)
    before, after = sums / len(pairs)
    return float(before), float(after)


def _decode(path: str, *, seed: int) -> float:
    start = time.process_time()
    with open_video(path) as video:
        video.get_frames(_CLIP(video.num_frames, np.random.default_rng(seed)).ravel())
    return time.process_time() - start
