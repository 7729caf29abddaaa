# A very small Iwin for the demo data: it trains on a laptop's CPU in minutes.
#
# Paper:    Iwin Transformer: Hierarchical Vision Transformer using Interleaved Windows, arXiv 2507.18405
# Accuracy: says nothing about the published models
# Hardware: one CPU
# Command:  iwin train iwin_nano_demo
#
# The data are class folders, demo/data/train/<class>/<video>; the classes are counted there. Nothing is mirrored, so
# classes may tell left from right. With `--data <folder>` it trains on class folders of your own.
_base_ = "../../_base_/models/iwin/iwin_nano.py"

img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_bgr=False)
train_pipeline = [
    dict(type="DecordInit"),
    dict(type="SampleFrames", clip_len=16, frame_interval=2, num_clips=1),
    dict(type="DecordDecode"),
    dict(type="Resize", scale=(-1, 64)),
    dict(type="RandomCrop", size=56),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="Collect", keys=["imgs", "label"], meta_keys=[]),
    dict(type="ToTensor", keys=["imgs", "label"]),
]
val_pipeline = [
    dict(type="DecordInit"),
    dict(type="SampleFrames", clip_len=16, frame_interval=2, num_clips=1, test_mode=True),
    dict(type="DecordDecode"),
    dict(type="Resize", scale=(-1, 64)),
    dict(type="CenterCrop", crop_size=56),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="Collect", keys=["imgs", "label"], meta_keys=[]),
    dict(type="ToTensor", keys=["imgs"]),
]
test_pipeline = [
    dict(type="DecordInit"),
    dict(type="SampleFrames", clip_len=16, frame_interval=2, num_clips=2, test_mode=True),
    dict(type="DecordDecode"),
    dict(type="Resize", scale=(-1, 56)),
    dict(type="ThreeCrop", crop_size=56),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="Collect", keys=["imgs", "label"], meta_keys=[]),
    dict(type="ToTensor", keys=["imgs"]),
]
data = dict(
    videos_per_gpu=8,
    workers_per_gpu=2,
    train=dict(type="VideoDataset", ann_file=None, data_prefix="demo/data/train", pipeline=train_pipeline),
    val=dict(type="VideoDataset", ann_file=None, data_prefix="demo/data/val", pipeline=val_pipeline),
    test=dict(type="VideoDataset", ann_file=None, data_prefix="demo/data/val", pipeline=test_pipeline),
)

optimizer = dict(type="AdamW", lr=1e-3, weight_decay=0.05)
optimizer_config = dict(grad_clip=dict(max_norm=5))
lr_config = dict(policy="CosineAnnealing", min_lr=0, warmup="linear", warmup_by_epoch=True, warmup_iters=2)
total_epochs = 40
checkpoint_config = dict(interval=5)
evaluation = dict(interval=5, metrics=["top_k_accuracy", "mean_class_accuracy"])
log_config = dict(interval=20, hooks=[dict(type="TextLoggerHook")])
work_dir = "work_dirs/iwin_nano_demo"
