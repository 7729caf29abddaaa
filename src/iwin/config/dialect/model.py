"""Upstream's words for the model: recogniser, backbone, head, losses, blending."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from iwin.config.dialect.words import NoEffect, Problem, Reading, Words
from iwin.config.schema import BackboneSettings, BlendingSettings, Fraction, ModelSettings, TestSettings

# ------------------------------------------------------------------------------------------------ backbone


class IwinTransformer3D(Words, BackboneSettings):
    """The backbone. Its words are ours, but some defaults differ: a key that is left out means what upstream means."""

    type: Literal["IwinTransformer3D"]
    patch_size: tuple[PositiveInt, PositiveInt, PositiveInt] = (4, 4, 4)
    patch_norm: bool = False
    drop_path_rate: Fraction = 0.2
    in_chans: Literal[3] = 3
    pretrained: str | None = None
    pretrained2d: bool = True
    num_frames: PositiveInt = 32
    """Our own word: the clip length that `time_embed` is sized for. Upstream knows only 32."""

    @field_validator("window_size", mode="before")
    @classmethod
    def _spatial_window(cls, window: Any, info: ValidationInfo) -> Any:
        """Upstream's configs inherited (time, rows, columns) windows from Video Swin; Iwin's has no time axis."""
        if isinstance(window, int):
            return (window, window)
        if isinstance(window, tuple) and len(window) == 3:
            Reading.of(info).notes.append(
                f"model.backbone.window_size {window} is read as the spatial window {window[1:]}: "
                "Iwin's windows hold all frames (upstream fails on three numbers)"
            )
            return window[1:]
        return window

    def settings(self) -> BackboneSettings:
        """The backbone in our words."""
        return BackboneSettings.model_validate(self.model_dump(include=set(BackboneSettings.model_fields)))


# ------------------------------------------------------------------------------------------------ head


class CrossEntropyLoss(Words):
    """Softmax cross entropy."""

    type: Literal["CrossEntropyLoss"] = "CrossEntropyLoss"
    loss_weight: PositiveFloat = 1.0
    class_weight: tuple[NonNegativeFloat, ...] | None = None


class BCELossWithLogits(Words):
    """Binary cross entropy of every class, for videos with several labels."""

    type: Literal["BCELossWithLogits"]
    loss_weight: PositiveFloat = 1.0
    class_weight: tuple[NonNegativeFloat, ...] | None = None


class I3DHead(Words):
    """Average pooling, dropout, a linear classifier."""

    type: Literal["I3DHead"]
    num_classes: PositiveInt | None = None
    """None, our extension, counts the classes in the training data."""
    in_channels: PositiveInt | None = None
    """Follows from the backbone here; upstream needs it."""
    loss_cls: Annotated[CrossEntropyLoss | BCELossWithLogits, Field(discriminator="type")] = CrossEntropyLoss()
    spatial_type: Literal["avg"] = "avg"
    dropout_ratio: Fraction = 0.5
    init_std: NonNegativeFloat = 0.01
    multi_class: bool = False
    label_smooth_eps: Fraction = 0.0
    """Used here whenever it is given; upstream uses it only with multi_class=True."""
    topk: Annotated[Any, NoEffect("evaluation.topk says which accuracies are reported")] = None


# ------------------------------------------------------------------------------------------------ train_cfg, test_cfg


class LabelSmoothing(Words):
    """Smoothed labels, nothing mixed."""

    type: Literal["LabelSmoothing"]
    num_classes: PositiveInt
    smoothing: Fraction = 0.0

    def settings(self) -> BlendingSettings | None:
        """Nothing is mixed."""
        return None


class MixupBlending(Words):
    """Mixup in a mini-batch."""

    type: Literal["MixupBlending"]
    num_classes: PositiveInt
    alpha: PositiveFloat = 0.2
    smoothing: Fraction = 0.0

    def settings(self) -> BlendingSettings | None:
        """Mixup in our words."""
        return BlendingSettings(mixup_alpha=self.alpha)


class CutmixBlending(Words):
    """Cutmix in a mini-batch."""

    type: Literal["CutmixBlending"]
    num_classes: PositiveInt
    alpha: PositiveFloat = 0.2
    smoothing: Fraction = 0.0

    def settings(self) -> BlendingSettings | None:
        """Cutmix in our words."""
        return BlendingSettings(cutmix_alpha=self.alpha)


class CutmixMixupBlending(Words):
    """Cutmix or mixup, chosen anew for each mini-batch."""

    type: Literal["CutmixMixupBlending"]
    num_classes: PositiveInt = 400
    smoothing: Fraction = 0.1
    mixup_alpha: PositiveFloat = 0.8
    cutmix_alpha: PositiveFloat = 1.0
    switch_prob: Fraction = 0.5

    def settings(self) -> BlendingSettings | None:
        """Both in our words."""
        return BlendingSettings(
            mixup_alpha=self.mixup_alpha, cutmix_alpha=self.cutmix_alpha, cutmix_probability=self.switch_prob
        )


Blending = Annotated[LabelSmoothing | MixupBlending | CutmixBlending | CutmixMixupBlending, Field(discriminator="type")]


class TrainCfg(Words):
    """`model.train_cfg`."""

    blending: Blending | None = None


class TestCfg(Words):
    """`model.test_cfg`."""

    __test__ = False  # not a test class, whatever its name says to pytest

    average_clips: Literal["prob", "score"] | None = "prob"
    max_testing_views: PositiveInt | None = None
    feature_extraction: Annotated[Any, NoEffect("features are taken from Python, by forward_features")] = False


# ------------------------------------------------------------------------------------------------ model


class Recognizer3D(Words):
    """`model`: the whole recogniser."""

    type: Literal["Recognizer3D"]
    backbone: IwinTransformer3D
    cls_head: I3DHead
    train_cfg: TrainCfg | None = None
    test_cfg: TestCfg | None = None

    def contradictions(self) -> Iterator[Problem]:
        """Keys that cannot both be meant."""
        channels, head = self.backbone.num_features, self.cls_head
        if head.in_channels not in (None, channels):
            message = f"is {head.in_channels}, but the backbone ends with {channels} channels; leave it out or mend it"
            yield Problem(("model", "cls_head", "in_channels"), message)
        if self.blending and head.num_classes not in (None, self.blending.num_classes):
            message = f"is {self.blending.num_classes}, but model.cls_head.num_classes is {head.num_classes}"
            yield Problem(("model", "train_cfg", "blending", "num_classes"), message)

    @property
    def blending(self) -> Blending | None:
        """What `train_cfg` says about blending."""
        return self.train_cfg.blending if self.train_cfg else None

    def settings(self) -> ModelSettings:
        """The model in our words."""
        backbone, head, loss = self.backbone, self.cls_head, self.cls_head.loss_cls
        return ModelSettings(
            backbone=backbone.settings(),
            num_classes=head.num_classes,
            dropout=head.dropout_ratio,
            init_std=head.init_std,
            label_smoothing=self.blending.smoothing if self.blending else head.label_smooth_eps,
            loss="cross_entropy" if isinstance(loss, CrossEntropyLoss) else "binary_cross_entropy",
            loss_weight=loss.loss_weight,
            class_weights=loss.class_weight,
            num_frames=backbone.num_frames,
            pretrained=backbone.pretrained,
            pretrained_image=backbone.pretrained2d,
        )

    def test_settings(self) -> TestSettings:
        """How views become one score, in our words."""
        test = self.test_cfg or TestCfg()
        return TestSettings(average_clips=test.average_clips, max_testing_views=test.max_testing_views)
