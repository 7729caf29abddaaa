"""From uint8 pixels to the numbers that the model sees, on the device that the pixels are on."""

import torch
from torch import Tensor


def normalize(
    clips: Tensor,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    bgr: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Subtract the mean and divide by the standard deviation of each channel.

    Difference and quotient are rounded to float32 one after the other, as in the original.

    Args:
        clips: uint8 (..., T, H, W, 3), RGB, 0-255; usually (B, T, H, W, 3).
        mean: Mean of each channel on the 0-255 scale, in the order of the result's channels.
        std: Standard deviation of each channel, likewise.
        bgr: Swap the channels to BGR first (for a model that was trained on BGR).
        dtype: Type of the result; the arithmetic is float32.

    Returns:
        (..., 3, T, H, W) on the same device: a permuted view, channels last in memory (for (B, T, H, W, 3) that is
        torch.channels_last_3d).
    """
    assert clips.dtype == torch.uint8  # a float tensor would be written to in place below
    pixels = clips.flip(-1) if bgr else clips
    # Built on the host and copied without blocking: made on the device, they would stall its queue at every batch.
    mean_C, std_C = (
        torch.tensor(values, dtype=torch.float32).to(clips.device, non_blocking=True) for values in (mean, std)
    )
    return pixels.float().sub_(mean_C).div_(std_C).to(dtype).movedim(-1, -4)
