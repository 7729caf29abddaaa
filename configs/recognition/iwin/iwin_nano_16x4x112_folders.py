# A small Iwin from fresh weights for class folders of your own: a first result on a CPU, before a GPU is asked for.
#
# Paper:    Iwin Transformer: Hierarchical Vision Transformer using Interleaved Windows, arXiv 2507.18405
# Accuracy: depends on the data; nothing is published for this size
# Hardware: one CPU or any GPU
# Command:  iwin train iwin_nano_16x4x112_folders --data <folder with train/ and val/>
#
# Clips of 16 frames, 4 frames apart, 112 x 112. Clips are mirrored: set the Flip's flip_ratio to 0 where classes tell
# left from right. With weights to start from, prefer one of the larger models' configs.
_base_ = "../../_base_/models/iwin/iwin_nano.py"

model = dict(backbone=dict(drop_path_rate=0.1), cls_head=dict(dropout_ratio=0.2, label_smooth_eps=0.1))

img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_bgr=False)
train_pipeline = [
    dict(type="DecordInit"),
    dict(type="SampleFrames", clip_len=16, frame_interval=4, num_clips=1),
    dict(type="DecordDecode"),
    dict(type="RandomResizedCrop", area_range=(0.4, 1.0)),
    dict(type="Resize", scale=(112, 112), keep_ratio=False),
    dict(type="Flip", flip_ratio=0.5),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="Collect", keys=["imgs", "label"], meta_keys=[]),
    dict(type="ToTensor", keys=["imgs", "label"]),
]
val_pipeline = [
    dict(type="DecordInit"),
    dict(type="SampleFrames", clip_len=16, frame_interval=4, num_clips=1, test_mode=True),
    dict(type="DecordDecode"),
    dict(type="Resize", scale=(-1, 128)),
    dict(type="CenterCrop", crop_size=112),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="Collect", keys=["imgs", "label"], meta_keys=[]),
    dict(type="ToTensor", keys=["imgs"]),
]
test_pipeline = [
    dict(type="DecordInit"),
    dict(type="SampleFrames", clip_len=16, frame_interval=4, num_clips=4, test_mode=True),
    dict(type="DecordDecode"),
    dict(type="Resize", scale=(-1, 112)),
    dict(type="ThreeCrop", crop_size=112),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="Collect", keys=["imgs", "label"], meta_keys=[]),
    dict(type="ToTensor", keys=["imgs"]),
]
data = dict(
    videos_per_gpu=8,
    workers_per_gpu=2,
    train=dict(type="VideoDataset", ann_file=None, data_prefix="data/train", pipeline=train_pipeline),
    val=dict(type="VideoDataset", ann_file=None, data_prefix="data/val", pipeline=val_pipeline),
    test=dict(type="VideoDataset", ann_file=None, data_prefix="data/val", pipeline=test_pipeline),
)

optimizer = dict(type="AdamW", lr=1e-3, weight_decay=0.05)
optimizer_config = dict(grad_clip=dict(max_norm=5))
lr_config = dict(policy="CosineAnnealing", min_lr=0, warmup="linear", warmup_by_epoch=True, warmup_iters=2)
total_epochs = 30
checkpoint_config = dict(interval=5)
evaluation = dict(interval=5, metrics=["top_k_accuracy", "mean_class_accuracy"])
log_config = dict(interval=20, hooks=[dict(type="TextLoggerHook")])
work_dir = "work_dirs/iwin_nano_16x4x112_folders"
