import pytest
import torch

from iwin.build import build_annotations, build_model, create_model
from iwin.config import load_run_config
from iwin.engine.optim import ParamRule, multipliers
from iwin.engine.schedule import Schedule
from iwin.errors import ConfigError, ModelError
from iwin.models.recognizer import IwinRecognizer
from tests.goldens import load_json, load_npz
from tests.sources import Golden, over_goldens


@pytest.mark.parametrize(
    "name", ["iwin_tiny_patch244_window77_kinetics400_1k", "iwin_base_patch244_window77_kinetics400_22k"]
)
@over_goldens
def test_a_recipe_gives_every_parameter_its_published_rate_and_decay(golden: Golden, name: str) -> None:
    expected = load_json(golden("data/param_groups.json"))[name]
    config, _ = load_run_config(name)
    with torch.device("meta"):
        model = build_model(config.model, num_classes=400)
    factors = multipliers(model, rules=[ParamRule(**rule.model_dump()) for rule in config.optim.rules])
    assert (config.optim.lr, config.optim.weight_decay) == (expected["base_lr"], expected["base_weight_decay"])
    settings = {key: [lr, decay * config.optim.weight_decay] for key, (lr, decay) in factors.items()}
    if isinstance(expected.get("lrmult_wd"), dict):
        assert list(settings) == list(expected["lrmult_wd"])
        for key, value in expected["lrmult_wd"].items():
            assert settings[key] == pytest.approx(value), key
    summary: dict[str, int] = {}
    for value in settings.values():
        summary[str(value)] = summary.get(str(value), 0) + 1
    assert summary == expected["summary"]


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
@over_goldens
def test_a_recipe_has_the_published_schedule(golden: Golden, name: str) -> None:
    expected = load_npz(golden("data/lr.npz"))["epochlen10_epochs30"]
    config, _ = load_run_config(f"iwin_{name}_patch244_window77_kinetics400_1k")
    schedule = Schedule(**config.schedule.model_dump())
    assert config.epochs == 30
    for group, factor in enumerate((1, 0.1)):
        rates = [
            schedule.lr(1e-3 * factor, iteration=iteration, iterations_per_epoch=10, epochs=30)
            for iteration in range(300)
        ]
        assert rates == pytest.approx(expected[:, group].tolist(), rel=1e-12)


def test_a_first_frame_other_than_0_is_refused_for_video_files() -> None:
    config, _ = load_run_config("iwin_nano_demo", ["data.val.start_index=1"])
    assert config.data.val is not None
    with pytest.raises(ConfigError, match=r"data\.val\.start_index=1: the frames of a video file count from 0"):
        build_annotations(config.data.val, name="val")


def test_create_model_takes_the_settings_of_the_backbone() -> None:
    model = create_model(
        "iwin_nano", num_classes=5, num_frames=16, drop_path_rate=0.3, use_checkpoint=True, dropout=0.1
    )
    assert isinstance(model, IwinRecognizer)
    assert model.num_classes == 5
    assert model.cls_head.dropout.p == 0.1
    assert model.backbone.time_embed is not None
    assert model.backbone.time_embed.shape[2] == 8
    with pytest.raises(ModelError, match="image model"):
        create_model("iwin_image_nano", dropout=0.1)
