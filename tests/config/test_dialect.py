"""What upstream's words mean in ours."""

from pathlib import Path
from typing import Any

import pytest

from iwin.config import dump_config, load_run_config, schema
from iwin.config.schema import RunConfig, SplitSettings
from iwin.errors import ConfigError

TINY = "iwin_tiny_patch244_window77_kinetics400_1k"
SMALLEST = {
    "model": {
        "type": "Recognizer3D",
        "backbone": {"type": "IwinTransformer3D"},
        "cls_head": {"type": "I3DHead"},
    }
}


def run_of(*options: str, config: str = TINY) -> RunConfig:
    return load_run_config(config, options)[0]


def parsed(folder: Path, **changes: Any) -> tuple[RunConfig, list[str]]:
    path = folder / "config.py"
    path.write_text(dump_config(SMALLEST | changes))
    return load_run_config(path)


def split_of(folder: Path, *steps: dict[str, Any], **dataset: Any) -> SplitSettings:
    """A test split whose pipeline samples frames and then takes the given steps."""
    raw = dataset.get("type") == "RawframeDataset"
    decode = {"type": "RawFrameDecode" if raw else "DecordDecode"}
    pipeline = [{"type": "SampleFrames", "clip_len": 8, "test_mode": True}, decode, *steps]
    split = {"type": "VideoDataset", "ann_file": "list.txt", "pipeline": pipeline} | dataset
    found = parsed(folder, data={"test": split})[0].data.test
    assert found
    return found


# ------------------------------------------------------------------------------------------------ the published recipe


def test_iwin_tiny_on_kinetics_400() -> None:
    run, _ = load_run_config(TINY, ["model.backbone.pretrained=weights.pth", "model.backbone.use_checkpoint=True"])
    assert run.model == schema.ModelSettings(
        backbone=schema.BackboneSettings(use_checkpoint=True), num_classes=400, pretrained="weights.pth"
    )
    assert run.test == schema.TestSettings(average_clips="prob", max_testing_views=4)
    assert run.schedule == schema.ScheduleSettings(warmup="linear", warmup_length=2.5, warmup_by_epoch=True)
    assert run.evaluation == schema.EvaluationSettings(interval=10)
    assert (run.epochs, run.log_interval, run.checkpoint_interval) == (30, 20, 1)
    assert (run.blending, run.trackers, run.load_from, run.resume_from) == (None, (), None, None)
    rules = {rule.key: (rule.lr_mult, rule.decay_mult) for rule in run.optim.rules}
    assert (rules["backbone"], rules["norm"]) == ((0.1, 1.0), (1.0, 0.0))
    optim = run.optim.model_copy(update={"rules": ()})
    assert optim == schema.OptimSettings(lr=1e-3, weight_decay=0.02, accumulation=4, mixed_precision=True)

    train, val, test = run.data.train, run.data.val, run.data.test
    assert train
    assert val
    assert test
    assert (train.batch_size, train.num_workers, val.batch_size, val.num_workers) == (8, 4, 1, 1)
    assert train.sampling == schema.SamplingSettings(clip_len=32, frame_interval=2)
    assert train.transforms == (
        schema.Resize(short_side=256),
        schema.RandomResizedCrop(area_range=(0.08, 1.0), aspect_ratio_range=(3 / 4, 4 / 3)),
        schema.Resize(size=(224, 224)),
        schema.Flip(probability=0.5),
    )
    assert val.transforms == (schema.Resize(short_side=256), schema.CenterCrop(size=(224, 224))), "flip 0 is none"
    assert test.transforms == (schema.Resize(short_side=224), schema.ThreeCrop(size=(224, 224)))
    assert test.sampling == schema.SamplingSettings(clip_len=32, frame_interval=2, num_clips=4, test_mode=True)
    assert test.normalize == schema.NormalizeSettings()


def test_something_something_loses_nothing() -> None:
    run, notes = load_run_config("iwin_base_patch244_window1677_sthv2")
    assert run.model.backbone.window_size == (7, 7)
    assert run.model.label_smoothing == 0.1
    assert run.blending is None
    assert run.data.train
    assert run.data.train.sampling.uniform
    assert run.data.train.transforms[-2:] == (
        schema.RandAugment(num_ops=4, magnitude=7),
        schema.RandomErasing(probability=0.25, fill="mean"),
    )
    assert sum("window_size (16, 7, 7) is read as the spatial window (7, 7)" in note for note in notes) == 1


def test_keys_left_out_mean_what_they_mean_upstream(tmp_path: Path) -> None:
    run, _ = parsed(tmp_path, optimizer={"type": "AdamW", "lr": 1.0}, total_epochs=1)
    assert run.model.backbone.patch_size == (4, 4, 4)
    assert run.model.backbone.drop_path_rate == 0.2
    assert not run.model.backbone.patch_norm
    assert (run.model.dropout, run.model.init_std) == (0.5, 0.01)
    assert run.optim.weight_decay == 0.01
    assert run.evaluation.metrics == ("top_k_accuracy",)
    assert (run.evaluation.interval, run.log_interval) == (1, 10)
    assert run.test.average_clips == "prob"
    assert run.schedule.policy == "constant"


# ------------------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize(
    ("options", "batch", "accumulation"),
    [
        ([], 8, 4),
        (["optimizer_config.update_interval=1"], 8, 1),
        (["data.videos_per_gpu=16", "optimizer_config.update_interval=8"], 16, 8),
        (["data.videos_per_gpu=10"], 8, 4),
        (["data.train_dataloader.videos_per_gpu=3"], 12, 4),
    ],
)
def test_dist_optimizer_hook_splits_the_batch(options: list[str], batch: int, accumulation: int) -> None:
    run, notes = load_run_config(TINY, options)
    assert run.data.train
    assert (run.data.train.batch_size, run.optim.accumulation) == (batch, accumulation)
    assert any("8 videos are used for each step" in note for note in notes) == ("data.videos_per_gpu=10" in options)


def test_mmcvs_own_accumulation_multiplies_the_batch(tmp_path: Path) -> None:
    hook = {"type": "GradientCumulativeOptimizerHook", "cumulative_iters": 4, "grad_clip": {"max_norm": 20}}
    path = tmp_path / "config.py"
    path.write_text(f"_base_ = '{TINY}'\noptimizer_config = dict(_delete_=True, **{hook})")
    run = run_of(config=str(path))
    assert run.data.train
    assert (run.data.train.batch_size, run.optim.accumulation, run.optim.grad_clip) == (32, 4, 20)
    assert not run.optim.mixed_precision


@pytest.mark.parametrize(
    ("option", "batch", "accumulation", "precision"),
    [
        ("optimizer_config.update_interval=4", 8, 4, False),
        ("optimizer_config.use_fp16=True", 8, 1, True),
        ("optimizer_config.cumulative_iters=4", 32, 4, False),
    ],
)
def test_a_hook_without_a_type_is_the_one_whose_words_it_uses(
    option: str, batch: int, accumulation: int, precision: bool
) -> None:
    run = run_of(option, config="iwin_nano_demo")
    assert run.data.train
    assert (run.data.train.batch_size, run.optim.accumulation) == (batch, accumulation)
    assert (run.optim.grad_clip, run.optim.mixed_precision) == (5, precision)


def test_validation_takes_the_common_numbers_where_it_has_none_of_its_own(tmp_path: Path) -> None:
    pipeline = [{"type": "SampleFrames", "clip_len": 8, "test_mode": True}, {"type": "DecordDecode"}]
    dataset = {"type": "VideoDataset", "ann_file": "a", "pipeline": pipeline}
    data = {"videos_per_gpu": 6, "workers_per_gpu": 3, "val": dataset, "test": dataset}
    run, _ = parsed(tmp_path, data=data | {"test_dataloader": {"workers_per_gpu": 0}})
    assert run.data.val
    assert run.data.test
    assert (run.data.val.batch_size, run.data.val.num_workers) == (6, 3)
    assert (run.data.test.batch_size, run.data.test.num_workers) == (6, 0)


@pytest.mark.parametrize(
    ("options", "mixed"),
    [
        ([], True),
        (["optimizer_config.use_fp16=False"], False),
        (["optimizer_config.use_fp16=False", "fp16.loss_scale=512."], True),
    ],
)
def test_both_ways_to_mixed_precision(options: list[str], mixed: bool) -> None:
    assert run_of(*options).optim.mixed_precision == mixed


# ------------------------------------------------------------------------------------------------ steps of a pipeline


@pytest.mark.parametrize(
    ("step", "transforms"),
    [
        ({"type": "Resize", "scale": (-1, 256)}, [schema.Resize(short_side=256)]),
        ({"type": "Resize", "scale": (256, -1)}, [schema.Resize(short_side=256)]),
        ({"type": "Resize", "scale": [340, 256]}, [schema.Resize(fit=(256, 340))]),
        ({"type": "Resize", "scale": (320, 240), "keep_ratio": False}, [schema.Resize(size=(240, 320))]),
        ({"type": "RandomResizedCrop", "area_range": [0.5, 1]}, [schema.RandomResizedCrop(area_range=(0.5, 1.0))]),
        ({"type": "RandomCrop", "size": 112}, [schema.RandomCrop(size=112)]),
        ({"type": "CenterCrop"}, [schema.CenterCrop(size=(224, 224))]),
        ({"type": "CenterCrop", "crop_size": (320, 240)}, [schema.CenterCrop(size=(240, 320))]),
        ({"type": "ThreeCrop", "crop_size": (224, 256)}, [schema.ThreeCrop(size=(256, 224))]),
        ({"type": "TenCrop", "crop_size": 224}, [schema.TenCrop(size=(224, 224))]),
        (
            {
                "type": "MultiScaleCrop",
                "input_size": 224,
                "scales": (1, 0.8),
                "max_wh_scale_gap": 0,
                "random_crop": True,
            },
            [schema.MultiScaleCrop(size=(224, 224), scales=(1.0, 0.8), max_scale_gap=0, random_place=True)],
        ),
        ({"type": "Flip"}, [schema.Flip(probability=0.5)]),
        ({"type": "Flip", "flip_ratio": 0}, []),
        (
            {"type": "Flip", "flip_ratio": 1, "direction": "vertical", "flip_label_map": {94: 93, 93: 94}},
            [schema.Flip(probability=1.0, direction="vertical", label_map=((93, 94), (94, 93)))],
        ),
        ({"type": "ColorJitter", "hue": 0.2}, [schema.ColorJitter(hue=0.2)]),
        (
            {"type": "Imgaug", "transforms": [{"type": "RandAugment", "n": 1, "m": 2}]},
            [schema.RandAugment(num_ops=1, magnitude=2)],
        ),
        ({"type": "FormatShape", "input_format": "NCTHW"}, []),
        ({"type": "Collect", "keys": ["imgs", "label"], "meta_keys": []}, []),
        ({"type": "ToTensor", "keys": ["imgs"]}, []),
        ({"type": "PyAVInit", "num_threads": 2}, []),
        ({"type": "OpenCVDecode"}, []),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_each_step(tmp_path: Path, step: dict[str, Any], transforms: list[Any]) -> None:
    assert split_of(tmp_path, step).transforms == tuple(transforms)


def test_random_erasing_stands_after_normalize(tmp_path: Path) -> None:
    normalize = {"type": "Normalize", "mean": [1, 2, 3], "std": [4, 5, 6], "to_bgr": True}
    erasing = {"type": "RandomErasing", "max_area": 0.5, "mode": "pixel", "max_count": 3}
    split = split_of(tmp_path, normalize, erasing)
    assert split.normalize == schema.NormalizeSettings(mean=(1, 2, 3), std=(4, 5, 6), bgr=True)
    assert split.transforms == (
        schema.RandomErasing(
            area_range=(0.02, 0.5), aspect_ratio_range=(0.3, 1 / 0.3), fill="noise", count_range=(1, 3)
        ),
    )


def test_a_pipeline_without_normalize_leaves_the_pixels_as_they_are(tmp_path: Path) -> None:
    assert split_of(tmp_path).normalize == schema.NormalizeSettings(mean=(0, 0, 0), std=(1, 1, 1))


def test_sampling(tmp_path: Path) -> None:
    step = {
        "type": "SampleFrames", "clip_len": 16, "frame_interval": 4, "num_clips": 10, "temporal_jitter": True,
        "twice_sample": True, "out_of_bound_opt": "repeat_last", "test_mode": True, "frame_uniform": True,
    }  # fmt: skip
    assert split_of(tmp_path, pipeline=[step, {"type": "DecordDecode"}]).sampling == schema.SamplingSettings(
        clip_len=16,
        frame_interval=4,
        num_clips=10,
        temporal_jitter=True,
        twice_sample=True,
        out_of_bound="repeat_last",
        uniform=True,
        test_mode=True,
    )
    step = {"type": "UniformSampleFrames", "clip_len": 16, "test_mode": True}
    assert split_of(tmp_path, pipeline=[step, {"type": "DecordDecode"}]).sampling == schema.SamplingSettings(
        clip_len=16, uniform=True, test_mode=True
    )


def test_datasets(tmp_path: Path) -> None:
    split = split_of(tmp_path, data_prefix="videos", start_index=1, num_classes=7)
    assert (split.ann_file, split.root, split.frames, split.start_index) == ("list.txt", "videos", False, 1)
    assert (split.multi_class, split.num_classes) == (False, 7)
    split = split_of(tmp_path, type="RawframeDataset", filename_tmpl="{:06}.png", with_offset=True)
    assert (split.frames, split.filename_template, split.with_offset) == (True, "{:06}.png", True)
    split = split_of(tmp_path, ann_file=None, data_prefix="classes")
    assert (split.ann_file, split.root) == (None, "classes")


@pytest.mark.parametrize(
    ("words", "power"),
    [({}, None), ({"sample_by_class": True}, 0.0), ({"sample_by_class": True, "power": 0.25}, 0.25),
     ({"balance": "class"}, 0.0), ({"balance": "sqrt"}, 0.5)],
)  # fmt: skip
def test_classes_are_balanced_by_upstreams_words_and_ours(
    tmp_path: Path, words: dict[str, Any], power: float | None
) -> None:
    pipeline = [{"type": "SampleFrames", "clip_len": 8}, {"type": "DecordDecode"}]
    train = {"type": "VideoDataset", "ann_file": "list.txt", "pipeline": pipeline, "repeats": 2, **words}
    split = parsed(tmp_path, data={"train": train})[0].data.train
    assert split is not None
    assert (split.class_power, split.repeats) == (power, 2)


def test_several_labels_have_a_loss_and_a_metric_of_their_own(tmp_path: Path) -> None:
    head = {"type": "I3DHead", "multi_class": True, "loss_cls": {"type": "BCELossWithLogits", "loss_weight": 160.0}}
    config, _ = parsed(tmp_path, model=SMALLEST["model"] | {"cls_head": head})
    assert (config.model.loss, config.model.loss_weight) == ("binary_cross_entropy", 160.0)
    assert config.evaluation.metrics == ("mean_average_precision",)
    with pytest.raises(ConfigError, match="loss_cls: is for one label a video"):
        parsed(tmp_path, model=SMALLEST["model"] | {"cls_head": {"type": "I3DHead", "multi_class": True}})


def test_bad_videos(tmp_path: Path) -> None:
    config, _ = parsed(tmp_path, data={"bad_videos": {"policy": "skip", "max_share": 0.05, "time_limit": 10}})
    assert config.data.bad_videos == schema.BadVideoSettings(policy="skip", max_share=0.05, time_limit=10.0)


# ------------------------------------------------------------------------------------------------ model and training


@pytest.mark.parametrize(
    ("blending", "smoothing", "settings"),
    [
        ({"type": "LabelSmoothing", "smoothing": 0.2}, 0.2, None),
        ({"type": "MixupBlending", "alpha": 0.8}, 0.0, schema.BlendingSettings(mixup_alpha=0.8)),
        ({"type": "CutmixBlending", "smoothing": 0.1}, 0.1, schema.BlendingSettings(cutmix_alpha=0.2)),
        (
            {"type": "CutmixMixupBlending", "switch_prob": 0.3},
            0.1,
            schema.BlendingSettings(mixup_alpha=0.8, cutmix_alpha=1.0, cutmix_probability=0.3),
        ),
    ],
)
def test_blending(
    tmp_path: Path, blending: dict[str, Any], smoothing: float, settings: schema.BlendingSettings | None
) -> None:
    model = SMALLEST["model"] | {"train_cfg": {"blending": {"num_classes": 5} | blending}}
    run, _ = parsed(tmp_path, model=model)
    assert (run.model.label_smoothing, run.blending) == (smoothing, settings)


def test_losses_and_head(tmp_path: Path) -> None:
    loss = {"type": "BCELossWithLogits", "loss_weight": 2.0, "class_weight": [1, 0.5]}
    head = {"type": "I3DHead", "num_classes": 2, "dropout_ratio": 0, "init_std": 0.1, "loss_cls": loss}
    run, notes = parsed(tmp_path, model=SMALLEST["model"] | {"cls_head": head | {"label_smooth_eps": 0.1}})
    assert (run.model.loss, run.model.loss_weight, run.model.class_weights) == ("binary_cross_entropy", 2.0, (1, 0.5))
    assert (run.model.dropout, run.model.init_std, run.model.label_smoothing) == (0.0, 0.1, 0.1)
    assert any("label_smooth_eps" in note for note in notes)


def test_optimisers(tmp_path: Path) -> None:
    adam = {"type": "Adam", "lr": 0.1, "paramwise_cfg": {"norm_decay_mult": 0, "bias_lr_mult": 2.0}}
    run, _ = parsed(tmp_path, optimizer=adam, total_epochs=1)
    assert run.optim == schema.OptimSettings(
        name="adam", lr=0.1, weight_decay=0.0, norm_decay_mult=0.0, bias_lr_mult=2.0
    )
    sgd = {"type": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True}
    clip = {"grad_clip": {"max_norm": 40, "norm_type": 2}}
    run, _ = parsed(
        tmp_path, optimizer=sgd, optimizer_config=clip, runner={"type": "EpochBasedRunner", "max_epochs": 7}
    )
    assert run.epochs == 7
    assert run.optim == schema.OptimSettings(
        name="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0, grad_clip=40.0
    )


@pytest.mark.parametrize(
    ("lr_config", "settings"),
    [
        ({"policy": "fixed"}, schema.ScheduleSettings(policy="constant")),
        ({"policy": "step", "step": [3, 6]}, schema.ScheduleSettings(policy="step", steps=(3, 6))),
        ({"policy": "Step", "step": 4, "gamma": 0.5}, schema.ScheduleSettings(policy="step", steps=(4, 8), gamma=0.5)),
        (
            {
                "policy": "CosineAnnealing",
                "min_lr_ratio": 0.01,
                "by_epoch": False,
                "warmup": "exp",
                "warmup_iters": 100,
            },
            schema.ScheduleSettings(min_lr_ratio=0.01, by_epoch=False, warmup="exp", warmup_length=100),
        ),
    ],
)
def test_learning_rate_policies(tmp_path: Path, lr_config: dict[str, Any], settings: schema.ScheduleSettings) -> None:
    assert parsed(tmp_path, lr_config=lr_config, total_epochs=10)[0].schedule == settings


def test_evaluation_checkpoints_and_log(tmp_path: Path) -> None:
    run, _ = parsed(
        tmp_path,
        evaluation={"interval": 2, "metrics": "mean_class_accuracy", "topk": 3, "save_best": None},
        checkpoint_config={"interval": 5, "max_keep_ckpts": 2},
        log_config={"interval": 7, "hooks": [{"type": "TextLoggerHook"}, {"type": "TensorboardLoggerHook"}]},
        work_dir="runs/one",
        load_from="a.pth",
        resume_from="b",
        seed=3,
        find_unused_parameters=True,
    )
    assert run.evaluation == schema.EvaluationSettings(
        interval=2, metrics=("mean_class_accuracy",), topk=(3,), save_best=None
    )
    assert (run.checkpoint_interval, run.keep_checkpoints, run.log_interval) == (5, 2, 7)
    assert run.trackers == ("tensorboard",)
    assert (run.work_dir, run.load_from, run.resume_from, run.seed) == ("runs/one", "a.pth", "b", 3)
    assert run.find_unused_parameters
    options = {"metric_options": {"top_k_accuracy": {"topk": [1, 3]}}}
    assert parsed(tmp_path, evaluation=options)[0].evaluation.topk == (1, 3)


# ------------------------------------------------------------------------------------------------ notes


def test_settings_without_effect_are_told_in_one_note() -> None:
    _, notes = load_run_config(TINY, ["evaluation.gpu_collect=True", "data.train.pipeline.0.num_threads=4"])
    (note,) = notes
    assert note.startswith("no effect here: ")
    for key in (
        "optimizer_config.coalesce", "optimizer_config.bucket_size_mb", "dist_params", "log_level",
        "evaluation.gpu_collect", "data.train.pipeline.0.num_threads",
    ):  # fmt: skip
        assert key in note


def test_free_variables_are_normal_and_misspelt_keys_are_not(tmp_path: Path) -> None:
    _, notes = parsed(tmp_path, dataset_type="VideoDataset", my_batch=3, data_root="x", img_norm_cfg={}, total_epoch=3)
    (note,) = notes
    assert note.endswith("'total_epoch' is taken for a variable of the file (did you mean 'total_epochs'?)")


def test_an_option_on_a_variable_is_said_to_change_nothing() -> None:
    _, notes = load_run_config(TINY, ["train_pipeline.1.clip_len=8"])
    assert any(note.startswith("option 'train_pipeline.1.clip_len=8' has no effect") for note in notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workflow": [("train", 1), ("val", 1)]}, "workflow"),
        ({"data": {"train": "dataset"}}, "no optimizer and no lr_config: training would use our defaults"),
        ({"data": {"val": "dataset"}}, "data.val samples its clips at random"),
        ({"model": SMALLEST["model"] | {"test_cfg": {"average_clips": None}}}, "a video has one score"),
    ],
)
def test_remarks(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    pipeline = [{"type": "SampleFrames", "clip_len": 8}, {"type": "DecordDecode"}]
    dataset = {"type": "VideoDataset", "ann_file": "a", "pipeline": pipeline}
    if "data" in changes:
        changes = {"data": dict.fromkeys(changes["data"], dataset)}
    (note,) = parsed(tmp_path, **changes)[1]
    assert message in note
