"""The named models: sizes of the paper's family (arXiv 2507.18405), as video recognisers and as image classifiers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iwin.errors import ModelError, did_you_mean
from iwin.models.iwin import IwinTransformer
from iwin.models.recognizer import IwinImageClassifier, IwinRecognizer


@dataclass(frozen=True)
class Size:
    """Width and depth of one member of the family."""

    embed_dim: int
    depths: tuple[int, int, int, int]
    num_heads: tuple[int, int, int, int]


SIZES = {
    "nano": Size(24, (1, 1, 2, 1), (1, 2, 4, 8)),  # ours: for tests, demos and small data
    "tiny": Size(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": Size(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": Size(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": Size(192, (2, 2, 18, 2), (6, 12, 24, 48)),
}

_RELEASE = "https://github.com/Cominder/Iwin-Transformer/releases/download/v1.0/"

PUBLISHED = {
    "tiny": {
        "kinetics400": _RELEASE + "iwin_tiny_patch244_window77_kinetics400_1k.pth",
        "imagenet1k": _RELEASE + "iwin_tiny_patch4_window7_224.pth",
    },
    "small": {
        # The authors' pages give this file addresses of other owners (github.com/IwinTransformer/releases/…, which
        # names no repository, and SwinTransformer/storage); this is where all their other files are.
        "kinetics400": _RELEASE + "iwin_small_patch244_window77_kinetics400_1k.pth",
        "imagenet1k": _RELEASE + "iwin_small_patch4_window7_224.pth",
    },
    "base": {
        "imagenet1k": _RELEASE + "iwin_base_patch4_window7_224.pth",
        "imagenet22k": _RELEASE + "iwin_base_patch4_window7_224_22k.pth",
    },
    "large": {"imagenet22k": _RELEASE + "iwin_large_patch4_window7_224_22k.pth"},
}
"""Addresses of the authors' weights by size and name, as their README gives them; not verified here, and published
without checksums. The ImageNet ones are image models'."""

VIDEO_MODELS = {f"iwin_{name}": size for name, size in SIZES.items()}
IMAGE_MODELS = {f"iwin_image_{name}": size for name, size in SIZES.items()}


def list_models() -> list[str]:
    """Names that `create_model` knows, video recognisers first."""
    return [*VIDEO_MODELS, *IMAGE_MODELS]


def published_url(name: str, *, embed_dim: int, depths: Sequence[int], image: bool) -> str | None:
    """Address of the authors' weights of a name such as "kinetics400" for a model.

    Args:
        name: a name that may stand in `PUBLISHED`.
        embed_dim: channels of the model's first stage.
        depths: blocks in each of its stages.
        image: whether it is an image model, which takes image weights only.

    Returns:
        None if no weights of any model have that name.

    Raises:
        ModelError: if there are such weights, but none that this model can take.
    """
    if not any(name in weights for weights in PUBLISHED.values()):
        return None
    known: dict[str, str] = {}
    for key, size in SIZES.items():
        if (size.embed_dim, size.depths) == (embed_dim, tuple(depths)):
            known = PUBLISHED.get(key, {})
    choice = [key for key in known if not image or key.startswith("imagenet")]
    if name not in choice:
        has = f"there are {', '.join(choice)}" if choice else "there are none"
        raise ModelError(f"the authors published no {name!r} weights for a model of this size; {has}")
    return known[name]


def build_named(
    name: str, *, num_classes: int | None = None, dropout: float | None = None, **backbone: Any
) -> IwinRecognizer | IwinImageClassifier:
    """A model of a named size with fresh weights.

    Args:
        name: one of `list_models()`.
        num_classes: classes; None means 400 (Kinetics) for a video model, 1000 (ImageNet) for an image model.
        dropout: dropout before a video model's classifier; None means 0.5.
        **backbone: settings of `IwinTransformer` (of `IwinImageClassifier` for an image model) that differ from the
            named size.

    Raises:
        ModelError: if there is no such model or setting.
    """
    sizes = VIDEO_MODELS | IMAGE_MODELS
    if name not in sizes:
        raise ModelError(f"there is no model {name!r}{did_you_mean(name, list_models())}; see iwin.list_models()")
    if num_classes is not None and num_classes < 1:
        raise ModelError(f"num_classes is {num_classes}; a classifier takes 1 or more")
    settings: dict[str, Any] = {**vars(sizes[name]), **backbone}
    try:
        if name in IMAGE_MODELS:
            if dropout is not None:
                raise ModelError(f"{name} is an image model and has no dropout before its classifier")
            return IwinImageClassifier(num_classes=1000 if num_classes is None else num_classes, **settings)
        return IwinRecognizer(
            IwinTransformer(**settings),
            num_classes=400 if num_classes is None else num_classes,
            dropout=0.5 if dropout is None else dropout,
        )
    except TypeError as error:
        raise ModelError(f"{name}: {error}") from None
