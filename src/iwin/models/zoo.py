"""The named models: sizes of the paper's family (arXiv 2507.18405), as video recognisers and as image classifiers."""

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

VIDEO_MODELS = {f"iwin_{name}": size for name, size in SIZES.items()}
IMAGE_MODELS = {f"iwin_image_{name}": size for name, size in SIZES.items()}


def list_models() -> list[str]:
    """Names that `create_model` knows, video recognisers first."""
    return [*VIDEO_MODELS, *IMAGE_MODELS]


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
