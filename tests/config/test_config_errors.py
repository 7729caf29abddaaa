"""Everything that is wrong with a config is told at once, each thing with its place."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from iwin.config import load_run_config, schema
from iwin.errors import ConfigError

TINY = "iwin_tiny_patch244_window77_kinetics400_1k"


def problems(*options: str, config: str | Path = TINY) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_run_config(config, options)
    headline, *lines = str(error.value).splitlines()
    assert headline.endswith("a problem:" if len(lines) == 1 else f"{len(lines)} problems:")
    return [line.strip() for line in lines]


def test_all_problems_at_once_with_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.py").write_text(
        f"_base_ = '{TINY}'\n"
        "model = dict(\n"
        "    backbone=dict(depth=[2, 2], embed_dim='96'),\n"
        "    cls_head=dict(num_classes=0))\n"
        "optimizer = dict(type='AdaBelief', lr=1)\n"
        "val = dict(pipeline=[\n"
        "    dict(type='SampleFrame'),\n"
        "    dict(size=3)])\n"
        "data = dict(val=val)\n"
    )
    assert problems("optimizer_config.update_intervall=3", config="config.py") == [
        "config.py:3: model.backbone.embed_dim: should be a whole number, not '96'",
        "config.py:3: model.backbone.depth: unknown key (did you mean 'depths'?)",
        "config.py:4: model.cls_head.num_classes: should be greater than 0, not 0",
        "config.py:7: data.val.pipeline.0.type: unknown value 'SampleFrame' (did you mean 'SampleFrames'?)",
        "config.py:8: data.val.pipeline.1.type: is missing",
        "config.py:5: optimizer.type: unknown value 'AdaBelief' (known here: AdamW, Adam, SGD)",
        "option 'optimizer_config.update_intervall=3': optimizer_config.update_intervall: "
        "unknown key (did you mean 'update_interval'?)",
    ]


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("model.backbone.pretraned=x", "model.backbone.pretraned: unknown key (did you mean 'pretrained'?)"),
        ("model.backbone.use_checkpoint=1", "model.backbone.use_checkpoint: should be True or False, not 1"),
        ("model.backbone.pretrained=3", "model.backbone.pretrained: should be text, not 3"),
        ("model.backbone.depths=2,2,a,2", "model.backbone.depths.2: should be a whole number, not 'a'"),
        ("model.backbone.depths=2,2", "depths (2, 2) and num_heads (3, 6, 12, 24) must name the same stages"),
        ("model.backbone.num_heads=5,6,12,24", "the 96 channels of stage 1 do not divide into 5 heads"),
        ("model.backbone.window_size=7", ""),
        ("model.backbone.window_size=(1,2,3,4)", "model.backbone.window_size: has the wrong number of values"),
        ("model.backbone.embed_dim=48", "model.cls_head.in_channels: is 768, but the backbone ends with 384 channels"),
        ("model.backbone.type=ResNet3d", "model.backbone.type: should be 'IwinTransformer3D', not 'ResNet3d'"),
        ("model.test_cfg.average_clips=mean", "should be 'prob' or 'score', not 'mean'"),
        ("data.train=None", ""),
        ("data.train=list.txt", "data.train: should be a dict, not 'list.txt'"),
        ("data.videos_per_gpu=0", "data.videos_per_gpu: should be greater than 0, not 0"),
        ("data.videos_per_gpu=2", "data.videos_per_gpu: is too small for optimizer_config.update_interval=4"),
        ("data.train.typ=1", "data.train.typ: unknown key (did you mean 'type'?)"),
        ("data.train.type=RepeatDataset", "data.train.type: unknown value 'RepeatDataset' (known here: VideoDataset,"),
        ("data.train.modality=Flow", "data.train.modality: should be 'RGB', not 'Flow'"),
        ("data.train.ann_file=None", ""),
        ("data.train.pipeline=[]", "data.train.pipeline: needs one step that samples frames, and has 0"),
        ("data.train.pipeline.2.type=RawFrameDecode", "a VideoDataset is decoded by DecordInit and DecordDecode"),
        ("data.train.pipeline.3.scale=256", "data.train.pipeline.3.scale: should be a list or tuple, not 256"),
        ("data.train.pipeline.3.scale=(0,256)", "scale (0, 256) should be (width, height) or (-1, short side)"),
        ("data.train.pipeline.5.scale=(-1,256)", "scale (-1, 256) should be (width, height)"),
        ("data.train.pipeline.3.interpolation=bicubic", "should be 'bilinear', not 'bicubic'"),
        ("data.train.pipeline.4.area_range=1,.5", "(1.0, 0.5) should be (lowest, highest)"),
        ("data.train.pipeline.6.flip_ratio=2", "data.train.pipeline.6.flip_ratio: should be less than or equal to 1"),
        ("data.train.pipeline.8.input_format=NCHW", "should be 'NCTHW', not 'NCHW'"),
        ("data.train.multi_class=True", "data.train.multi_class: is True, but model.cls_head.multi_class is False"),
        ("data.train.balance=root", "data.train.balance: should be 'class' or 'sqrt', not 'root'"),
        ("data.train.power=0.5", "data.train.power: means nothing without sample_by_class=True"),
        ("data.val.repeats=2", "data.val.repeats: is for training; here every video counts once"),
        ("data.bad_videos.policy=ignore", "data.bad_videos.policy: should be 'error', 'skip' or 'resample'"),
        ("data.bad_videos.max_share=2", "data.bad_videos.max_share: should be less than or equal to 1, not 2"),
        ("data.bad_videos.share=0.1", "data.bad_videos.share: unknown key (did you mean 'max_share'?)"),
        ("optimizer.lr=-1", "optimizer.lr: should be greater than or equal to 0, not -1"),
        ("optimizer.constructor=TSMOptimizerConstructor", "should be 'DefaultOptimizerConstructor'"),
        ("optimizer.paramwise_cfg.custom_keys.head.lr=1", "optimizer.paramwise_cfg.custom_keys.head.lr: unknown key"),
        ("optimizer_config.type=Hook", "optimizer_config.type: unknown value 'Hook' (known here: OptimizerHook, Dist"),
        ("lr_config.policy=poly", "lr_config.policy: unknown value 'poly' (known here: fixed, Fixed, step,"),
        ("lr_config.policy=fixed", "lr_config.min_lr: unknown key"),
        ("lr_config.min_lr=None", "lr_config: needs min_lr or min_lr_ratio, one of the two"),
        ("lr_config.min_lr_ratio=0.1", "lr_config: needs min_lr or min_lr_ratio, one of the two"),
        ("lr_config.warmup_iters=0", "lr_config: warmup 'linear' needs warmup_iters above 0"),
        ("total_epochs=None", "total_epochs: is missing, though there is an optimizer"),
        ("total_epochs=1.5", "total_epochs: should be a whole number, not 1.5"),
        ("evaluation.metrics=top5", "evaluation.metrics: should be 'top_k_accuracy'"),
        ("fp16=True", "fp16: should be a dict, not True"),
        ("custom_hooks=[a]", "custom_hooks: is mmcv's, but not offered here; leave it out"),
        ("test_cfg.average_clips=prob", "test_cfg: belongs inside model = dict(...)"),
        ("optim_wrapper.type=x", "optim_wrapper: is mmaction2 1.x; only the words of mmaction2 0.x are read here"),
        ("total_epoch=3", "total_epoch: unknown key (did you mean 'total_epochs'?)"),
        ("max_epochs=3", "max_epochs: unknown key"),
    ],
)
def test_options_are_checked_like_the_file(option: str, problem: str) -> None:
    if not problem:
        load_run_config(TINY, [option])
        return
    (line,) = problems(option)
    assert problem in line


def test_a_policy_named_like_its_own_key() -> None:
    (line,) = problems("lr_config.policy=step", "lr_config.step=[3]")
    assert "lr_config.min_lr: unknown key (known here: by_epoch, gamma," in line
    assert "iwin_adamw_30e.py:" in line, "the line to change is in a base"


def test_blending_must_have_the_models_classes() -> None:
    (line,) = problems("model.cls_head.num_classes=10", config="iwin_base_patch244_window1677_sthv2")
    assert line.endswith("model.train_cfg.blending.num_classes: is 174, but model.cls_head.num_classes is 10")


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (
            "dict(type='Normalize', **norm), dict(type='ColorJitter')",
            "pipeline.3: ColorJitter must stand before",
        ),
        ("dict(type='RandomErasing'), dict(type='Normalize', **norm)", "pipeline.2: RandomErasing must stand after"),
        ("dict(type='RandomErasing', min_area=0.9)", "pipeline.2: min_area 0.9 is above max_area 0.33"),
        ("dict(type='SampleFrames', clip_len=3)", "pipeline: needs one step that samples frames, and has 2"),
        ("dict(type='DenseSampleFrames')", "unknown value 'DenseSampleFrames'"),
        (
            "dict(type='Imgaug', transforms='default')",
            "pipeline.2.transforms: should be a list or tuple",
        ),
    ],
)
def test_pipelines_that_cannot_be(tmp_path: Path, steps: str, problem: str) -> None:
    (tmp_path / "config.py").write_text(
        f"_base_ = '{TINY}'\nnorm = dict(mean=[0, 0, 0], std=[1, 1, 1])\n"
        f"steps = [dict(type='SampleFrames', clip_len=8), dict(type='DecordDecode'), {steps}]\n"
        "data = dict(train=dict(pipeline=steps))"
    )
    (line,) = problems(config=tmp_path / "config.py")
    assert problem in line


def test_nothing_to_read_the_videos_from() -> None:
    (line,) = problems("data.val.ann_file=None", "data.val.data_prefix=None")
    assert line.endswith("data.val.ann_file: is missing, and there is no data_prefix with class folders either")


def test_an_empty_file_lacks_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("")
    assert problems(config=tmp_path / "config.py")[0].endswith("config.py:1: model: is missing")


# ------------------------------------------------------------------------------------------------ our own schema


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"backbone": {"depths": (), "num_heads": ()}}},
        {"model": {"backbone": {"embed_dim": 97}}},
        {"optim": {"lr": float("nan")}},
        {"optim": {"learning_rate": 1}},
        {"data": {"train": {"transforms": [{"kind": "rotate"}]}}},
    ],
)
def test_the_schema_refuses_what_makes_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        schema.RunConfig.model_validate(values)


def test_settings_are_immutable_and_survive_json() -> None:
    run, _ = load_run_config("iwin_base_patch244_window1677_sthv2")
    with pytest.raises(ValidationError):
        run.epochs = 3  # type: ignore[misc]
    assert schema.RunConfig.model_validate_json(run.model_dump_json()) == run
