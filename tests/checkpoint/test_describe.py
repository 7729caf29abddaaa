import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from iwin.checkpoint.convert import load_weights
from iwin.checkpoint.describe import describe, model_heads, stated_heads
from iwin.checkpoint.io import Weights
from iwin.errors import CheckpointError
from iwin.models.recognizer import IwinImageClassifier, IwinRecognizer
from iwin.models.zoo import build_named

HERE = Path("weights.pth")


def hollow(name: str, **settings: Any) -> IwinRecognizer | IwinImageClassifier:
    """A model of any size without values, in no time."""
    with torch.device("meta"):
        return build_named(name, **settings)


def state_of(name: str, **settings: Any) -> dict[str, Tensor]:
    return hollow(name, **settings).state_dict()


# ------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("name", "settings", "text", "classes", "frames"),
    [
        ("iwin_base", {}, "a recogniser of embed_dim 128, depths 2, 2, 18, 2, patch 2x4x4", 400, 32),
        ("iwin_tiny", {"num_classes": 5, "num_frames": 16}, "a recogniser of embed_dim 96, depths 2, 2, 6, 2", 5, 16),
        ("iwin_image_nano", {}, "an image model of embed_dim 24, depths 1, 1, 2, 1, patch 4x4", 1000, None),
    ],
)
def test_shapes_tell_the_size(name: str, settings: dict[str, Any], text: str, classes: int, frames: int | None) -> None:
    description = describe(state_of(name, **settings), HERE)
    assert str(description).startswith(text)
    assert (description.num_classes, description.num_frames) == (classes, frames)


def test_a_bare_backbone_has_no_classes() -> None:
    model = hollow("iwin_nano")
    assert isinstance(model, IwinRecognizer)
    description = describe(model.backbone.state_dict(), HERE)
    assert (description.layout, description.num_classes, description.num_frames) == ("backbone", None, 32)


# ------------------------------------------------------------------------------------------- misfits


@pytest.mark.parametrize(
    ("model", "checkpoint", "hint"),
    [
        (
            "iwin_tiny",
            "iwin_base",
            "it fills 0% of the backbone; the checkpoint is a recogniser of embed_dim 128, depths 2, 2, 18, 2, patch "
            "2x4x4, the model a recogniser of embed_dim 96, depths 2, 2, 6, 2, patch 2x4x4",
        ),
        ("iwin_small", "iwin_tiny", "it fills 58% of the backbone; the checkpoint is a recogniser of embed_dim 96"),
        ("iwin_tiny", "iwin_small", "only 58% of its backbone has a place"),
        ("iwin_tiny", "iwin_image_small", "the checkpoint is an image model of embed_dim 96, depths 2, 2, 18, 2"),
        ("iwin_image_tiny", "iwin_tiny", "it fills 0% of the backbone; the checkpoint is a recogniser"),
    ],
)
def test_another_member_of_the_family_is_refused(model: str, checkpoint: str, hint: str) -> None:
    with pytest.raises(CheckpointError, match=hint):
        load_weights(hollow(model), Weights(HERE, state_of(checkpoint)))


def test_another_patch_is_refused_though_all_else_fits() -> None:
    checkpoint = state_of("iwin_tiny", patch_size=(4, 4, 4))
    with pytest.raises(CheckpointError, match=r"patch 4x4x4, the model a recogniser .* patch 2x4x4; choose"):
        load_weights(hollow("iwin_tiny"), Weights(HERE, checkpoint))


def test_a_video_backbone_is_no_image_model() -> None:
    model = hollow("iwin_tiny")
    assert isinstance(model, IwinRecognizer)
    with pytest.raises(CheckpointError, match=r"the checkpoint is a video backbone .*, the model an image model"):
        load_weights(hollow("iwin_image_tiny"), Weights(HERE, model.backbone.state_dict()))


def test_a_swin_transformer_is_recognised() -> None:
    state = state_of("iwin_image_tiny")
    state["layers.0.blocks.0.attn.relative_position_bias_table"] = torch.zeros(169, 3)
    with pytest.raises(CheckpointError, match="is a Swin Transformer's checkpoint"):
        load_weights(hollow("iwin_tiny"), Weights(HERE, state))


# ------------------------------------------------------------------------------------------- attention heads

RELEASED = {"MODEL": {"TYPE": "iwin", "SWIN": {"NUM_HEADS": [3, 6, 12, 24]}, "IWIN": {"NUM_HEADS": [3, 4, 8, 16]}}}


@pytest.mark.parametrize(
    ("metadata", "others", "heads"),
    [
        ({}, {}, None),
        ({"config": json.dumps({"model": {"backbone": {"num_heads": [1, 2, 4, 8]}}})}, {}, (1, 2, 4, 8)),
        ({"config": "{}"}, {"config": RELEASED}, None),
        ({}, {"config": RELEASED}, (3, 4, 8, 16)),
        ({}, {"config": {"MODEL": {"SWIN": {"NUM_HEADS": [3, 6, 12, 24]}}}}, (3, 6, 12, 24)),
        ({}, {"config": {"A": {"NUM_HEADS": [3, 6]}, "B": {"NUM_HEADS": [6, 6]}}}, None),
        ({}, {"config": {"MODEL": {"TYPE": "iwin", "IWIN": {"NUM_HEADS": "many"}}}}, None),
        ({}, {"meta": {"config": "model = dict(backbone=dict(num_heads=[3, 6, 12, 24]))"}}, (3, 6, 12, 24)),
        ({}, {"meta": {"config": "num_heads=(1, 2)\nother_num_heads=[5]\nnum_heads = [1, 2,]"}}, (1, 2)),
        ({}, {"meta": {"config": 7}, "config": "text"}, None),
    ],
)
def test_attention_heads_are_what_the_checkpoint_states(
    metadata: dict[str, str], others: dict[str, Any], heads: tuple[int, ...] | None
) -> None:
    assert stated_heads(Weights(HERE, {}, metadata, others)) == heads


def test_other_attention_heads_are_a_warning_and_an_error_for_a_trained_model() -> None:
    weights = Weights(HERE, state_of("iwin_image_small"), {}, {"config": RELEASED})
    report = load_weights(hollow("iwin_small"), weights)
    warning = "it was trained with 3, 4, 8, 16 attention heads, but the model has 3, 6, 12, 24"
    assert report.warnings == (warning,)
    assert str(report).endswith(warning)
    with pytest.raises(CheckpointError, match=warning):
        load_weights(hollow("iwin_image_small"), weights, whole=True)
    fitting = hollow("iwin_image_small", num_heads=(3, 4, 8, 16))
    assert isinstance(fitting, IwinImageClassifier)
    assert model_heads(fitting) == (3, 4, 8, 16)
    assert load_weights(fitting, weights, whole=True).warnings == ()


def test_heads_that_nobody_states_are_asked_for_where_the_released_ones_differ() -> None:
    report = load_weights(hollow("iwin_small"), Weights(HERE, state_of("iwin_image_small")))
    assert "does not say how many attention heads" in str(report)
    assert "the model has 3, 6, 12, 24" in str(report)
    for name in ("tiny", "base"):
        report = load_weights(hollow(f"iwin_{name}"), Weights(HERE, state_of(f"iwin_image_{name}")))
        assert report.warnings == ()
    assert load_weights(hollow("iwin_small"), Weights(HERE, state_of("iwin_small"))).warnings == ()
