"""Random colour changes of uint8 clips, by torchvision's image operations.

A clip is a uint8 tensor (V, T, H, W, 3), as in `geometry`; what is drawn holds for all frames of all views.
"""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from torch import Tensor


def image_operations() -> ModuleType:
    """`torchvision.transforms.v2.functional`, imported when it is first needed.

    Importing it takes seconds, in each decoder process: those that change no colours do without.
    """
    from torchvision.transforms.v2 import functional

    return functional


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Random brightness, contrast, saturation and hue, in random order.

    The factors multiply, and are drawn, as in torchvision: uniform in max(0, 1 - x) .. 1 + x, the hue in -x .. x. The
    contrast of a frame is around that frame's own mean grey. What is 0 is left out; the same numbers are drawn whatever
    the attributes are, so that switching one off changes no other random choice.

    Attributes:
        brightness: Greatest change of brightness, from 0.
        contrast: Greatest change of contrast, from 0.
        saturation: Greatest change of saturation, from 0.
        hue: Greatest shift of the hue in turns of the colour circle, 0 .. 0.5. Far slower than the others.
    """

    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.1

    def __call__(self, clip: Tensor, rng: np.random.Generator, /) -> Tensor:
        """Draw four changes and their order, and make them; a clip that nothing changes is returned as it is."""
        operations = image_operations()
        changes = []
        for name in ("brightness", "contrast", "saturation"):
            reach = getattr(self, name)
            changes.append((reach, getattr(operations, f"adjust_{name}"), rng.uniform(max(0.0, 1 - reach), 1 + reach)))
        changes.append((self.hue, operations.adjust_hue, rng.uniform(-self.hue, self.hue)))
        frames = clip.movedim(-1, -3)
        for index in rng.permutation(len(changes)):
            reach, change, amount = changes[index]
            if reach:
                frames = change(frames, amount)
        return frames.movedim(-3, -1).contiguous()
