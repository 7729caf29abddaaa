"""Videos to measure decoders on: textures that pan and cross each other under noise, so that motion is worth coding."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

_Picture = npt.NDArray[np.float32]

OCTAVES = (4, 8, 16, 32, 64, 128)
"""Details in a picture's height, from coarse to fine."""


def make_footage(
    path: Path, *, height: int, width: int, gop: int = 250, num_frames: int = 300, noise: float = 3.5, seed: int = 0
) -> Path:
    """Write 10 s of H.264 as x264 makes it by default: 30 frames a second, quality (crf) 23, B-frames.

    Args:
        path: where to; the suffix chooses the container.
        height: of the picture, even.
        width: of the picture, even.
        gop: the largest distance between keyframes, in frames.
        num_frames: length.
        noise: standard deviation of what changes from frame to frame, in grey levels; it decides the bit rate.
        seed: of the scene.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "23"})
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = height, width, "yuv420p", gop
        for t, pixels in enumerate(scene(height, width, num_frames=num_frames, noise=noise, seed=seed)):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = t, Fraction(1, 30)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def scene(height: int, width: int, *, num_frames: int, noise: float, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Pictures (H, W, 3): a camera that pans over a large texture, four objects that swing across it, noise."""
    rng = np.random.default_rng(seed)
    ground = _texture(2 * height, 2 * width, rng)
    objects = [(_texture(height // 3, width // 4, rng), *rng.uniform(0, 2 * np.pi, 2)) for _ in range(4)]
    grain = rng.normal(0, noise, (8, height, width, 1)).astype(np.float32)
    for t in range(num_frames):
        y, x = _swing(t / 90, height), _swing(t / 70 + 1, width)
        picture = ground[y : y + height, x : x + width].copy()
        for thing, down, right in objects:
            y = _swing(t / 25 + down, height - len(thing))
            x = _swing(t / 31 + right, width - thing.shape[1])
            picture[y : y + len(thing), x : x + thing.shape[1]] = thing
        picture += np.roll(grain[t % len(grain)], int(rng.integers(width)), axis=1)
        yield picture.clip(0, 255).astype(np.uint8)


def _swing(phase: float, reach: int) -> int:
    return int((0.5 + 0.5 * np.sin(phase)) * reach)


def _texture(height: int, width: int, rng: np.random.Generator) -> _Picture:
    """Random grids of growing fineness, smoothed and added: detail at every scale, as in photographs."""
    texture = np.full((height, width, 3), 128, np.float32)
    for rows in OCTAVES:
        columns = rows * width // height
        grid = rng.standard_normal((rows + 2, columns + 2, 3)).astype(np.float32)
        y, x = np.linspace(0, rows, height), np.linspace(0, columns, width)
        top, left = y.astype(int), x.astype(int)
        down, right = (y - top)[:, None, None].astype(np.float32), (x - left)[:, None].astype(np.float32)
        above, below = (row[:, left] * (1 - right) + row[:, left + 1] * right for row in (grid[top], grid[top + 1]))
        texture += 60 * rows**-0.5 * (above * (1 - down) + below * down)
    return texture
