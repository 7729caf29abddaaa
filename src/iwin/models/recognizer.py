"""Classifiers on the Iwin backbone: the video recogniser with its multi-view score, and the image classifier."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from iwin.errors import ModelError
from iwin.models.iwin import IwinTransformer

Average = Literal["prob", "score", "sigmoid"] | None


class ClassificationHead(nn.Module):
    """Global average over time and space, dropout, linear classifier (upstream's I3DHead)."""

    def __init__(self, in_features: int, num_classes: int, *, dropout: float = 0.5, init_std: float = 0.01) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc_cls = nn.Linear(in_features, num_classes)
        nn.init.normal_(self.fc_cls.weight, std=init_std)
        nn.init.zeros_(self.fc_cls.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, num_classes) of features (B, C, T', H', W')."""
        return self.fc_cls(self.dropout(pool(features)))


def pool(features: Tensor) -> Tensor:
    """Mean over time and space: (B, C, T', H', W') -> (B, C)."""
    return features.mean(dim=(2, 3, 4))


class IwinRecognizer(nn.Module):
    """A video classifier: clips in, logits out.

    Args:
        backbone: the feature extractor.
        num_classes: classes.
        dropout: dropout before the classifier.
        init_std: standard deviation of the classifier's initial weights.
    """

    def __init__(
        self, backbone: IwinTransformer, *, num_classes: int, dropout: float = 0.5, init_std: float = 0.01
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.cls_head = ClassificationHead(backbone.num_features, num_classes, dropout=dropout, init_std=init_std)
        self.init_std = init_std

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.cls_head.fc_cls.out_features

    def forward(self, clips: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalised clips (B, 3, T, H, W) of any length and size."""
        return self.cls_head(self.backbone(clips))

    def forward_features(self, clips: Tensor) -> Tensor:
        """Features (B, C, T', H', W') of normalised clips (B, 3, T, H, W)."""
        return self.backbone(clips)

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes) of features (B, C, T', H', W'), or with `pre_logits` the pooled features (B, C)."""
        return pool(features) if pre_logits else self.cls_head(features)

    def forward_views(
        self,
        views: Tensor,
        *,
        average: Average = "prob",
        max_views: int | None = None,
        features: bool = False,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """One score a video from several views of it (upstream's multi-view test).

        Args:
            views: (B, V, 3, T, H, W): V views (clips x crops) of each of B videos; what `prepare` takes, if given.
            average: mean over the views of their softmax ("prob") or of their logits ("score"), or the sigmoid of the
                latter ("sigmoid", where a video can have several labels); None averages nothing.
            max_views: views that go through the model at once; None sends all. It bounds memory, not the result.
            features: give pooled features instead of scores; their views are averaged as they are.
            prepare: maps some views, the first two axes merged, to normalised clips; it sees no more of them at once
                than the model does, so uint8 views become floats a few at a time.

        Returns:
            (B, num_classes), or (B * V, num_classes) without averaging; (B, C) for features.
        """
        count = views.shape[1]
        flat = views.flatten(0, 1)
        chunks = (chunk if prepare is None else prepare(chunk) for chunk in flat.split(max_views or len(flat)))
        if features:
            return torch.cat([pool(self.backbone(chunk)) for chunk in chunks]).unflatten(0, (-1, count)).mean(1)
        return average_views(torch.cat([self(chunk) for chunk in chunks]), count, average=average)

    def reset_classifier(self, num_classes: int) -> None:
        """Put a fresh classifier for another number of classes on the backbone."""
        old = self.cls_head
        weight = old.fc_cls.weight
        self.cls_head = ClassificationHead(
            old.fc_cls.in_features, num_classes, dropout=old.dropout.p, init_std=self.init_std
        ).to(weight.device, weight.dtype)
        self.cls_head.train(old.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block's activations in the backward pass: the same gradients in less memory."""
        self.backbone.set_grad_checkpointing(enable)


def average_views(logits: Tensor, count: int, *, average: Average) -> Tensor:
    """Scores (B, K) of logits (B * V, K) of `count` views a video; see `IwinRecognizer.forward_views`.

    Raises:
        ModelError: if `average` is no such word.
    """
    if average is None:
        return logits
    if average not in ("prob", "score", "sigmoid"):
        raise ModelError(f'average is {average!r}; choose "prob", "score", "sigmoid" or None')
    logits = logits.float()  # half precision would make ties
    scores = (logits.softmax(-1) if average == "prob" else logits).unflatten(0, (-1, count)).mean(1)
    return scores.sigmoid() if average == "sigmoid" else scores


def check_finite(scores: Tensor, video: str) -> None:
    """Refuse scores (K,) of a video that are no numbers.

    Raises:
        ModelError: if one is NaN or infinite.
    """
    if not scores.isfinite().all():
        raise ModelError(
            f"{video}: its scores are not finite; fp16 may be too small for the model's numbers: choose bf16 or no "
            "half precision"
        )


class IwinImageClassifier(IwinTransformer):
    """An image classifier: the backbone on clips of one frame, with upstream's flat state-dict keys (`head.*`).

    Args:
        num_classes: classes.
        image_size: side in pixels of the images that the weights were trained on; it decides which stages have the
            depthwise branch (those whose map is larger than a window).
        window_size: side of the square window in tokens.
        absolute_positions: whether there is a learned absolute position embedding (the authors' option `ape`).
        depths: blocks in each stage.
        **backbone: further settings of `IwinTransformer`.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        image_size: int = 224,
        window_size: int = 7,
        absolute_positions: bool = False,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        **backbone: Any,
    ) -> None:
        side = image_size // 4
        super().__init__(
            depths=depths,
            patch_size=(1, 4, 4),
            window_size=(window_size, window_size),
            num_frames=None,
            dwconv_stages=[side // 2**stage > window_size for stage in range(len(depths))],
            num_positions=side**2 if absolute_positions else 0,
            **backbone,
        )
        self.reset_classifier(num_classes)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.head.out_features

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalised images (B, 3, H, W)."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Features (B, C, 1, H', W') of normalised images (B, 3, H, W)."""
        if images.ndim != 4:
            raise ModelError(f"an image model takes images (B, 3, H, W), not a tensor of shape {tuple(images.shape)}")
        return super().forward(images.unsqueeze(2))

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes) of features (B, C, 1, H', W'), or with `pre_logits` the pooled features (B, C)."""
        pooled = pool(features)
        return pooled if pre_logits else self.head(pooled)

    def reset_classifier(self, num_classes: int) -> None:
        """Put a fresh classifier for another number of classes on the backbone."""
        weight = self.norm.weight
        self.head = nn.Linear(self.num_features, num_classes, device=weight.device, dtype=weight.dtype)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
