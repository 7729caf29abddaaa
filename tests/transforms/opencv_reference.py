"""What `cv2.resize(..., interpolation=INTER_LINEAR)` does to uint8 pixels, bit for bit, without OpenCV.

Weights have 11 bits, the horizontal pass comes first, and the vertical pass cuts bits off before it rounds. Equality
with OpenCV's own output is a test (test_geometry.py); the reference then serves for any size.
"""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


def _taps(size: int, new_size: int, *, clamp_weights: bool) -> tuple[Ints, Ints, Ints, Ints]:
    """Two source positions and their weights (0 .. 2048) for each new position."""
    centres = ((np.arange(new_size) + 0.5) * (size / new_size) - 0.5).astype(np.float32)
    first = np.floor(centres).astype(np.int64)
    share = (centres - first).astype(np.float32)
    if clamp_weights:
        share[(first < 0) | (first >= size - 1)] = 0
    near = np.rint((1 - share) * np.float32(2048)).astype(np.int64)
    far = np.rint(share * np.float32(2048)).astype(np.int64)
    return first.clip(0, size - 1), (first + 1).clip(0, size - 1), near, far


def resize_linear(image: Pixels, height: int, width: int) -> Pixels:
    """Resize an image of shape (H, W, 3)."""
    left, right, left_weight, right_weight = _taps(image.shape[1], width, clamp_weights=True)
    upper, lower, upper_weight, lower_weight = _taps(image.shape[0], height, clamp_weights=False)
    pixels = image.astype(np.int64)
    rows = (pixels[:, left] * left_weight[:, None] + pixels[:, right] * right_weight[:, None]) >> 4
    above = (rows[upper] * upper_weight[:, None, None]) >> 16
    below = (rows[lower] * lower_weight[:, None, None]) >> 16
    return ((above + below + 2) >> 2).astype(np.uint8)
