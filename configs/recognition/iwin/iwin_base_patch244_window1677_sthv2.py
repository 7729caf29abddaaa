# Iwin-B on Something-Something V2.
#
# Paper:    Iwin Transformer: Hierarchical Vision Transformer using Interleaved Windows, arXiv 2507.18405
# Accuracy: not published
# Hardware: 8 GPUs x 8 clips
# Command:  torchrun --nproc-per-node 8 -m iwin train iwin_base_patch244_window1677_sthv2 \
#               --cfg-options model.backbone.pretrained=<weights of Iwin-B>
#
# The published window (16, 7, 7) is kept as it is; it is read as (7, 7), for Iwin's windows always hold all frames.
_base_ = [
    "../../_base_/models/iwin/iwin_base.py",
    "../../_base_/datasets/sthv2_uniform32.py",
    "../../_base_/schedules/iwin_adamw_30e.py",
    "../../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(patch_size=(2, 4, 4), window_size=(16, 7, 7), drop_path_rate=0.4),
    cls_head=dict(num_classes=174),
    train_cfg=dict(blending=dict(type="LabelSmoothing", num_classes=174, smoothing=0.1)),
    test_cfg=dict(max_testing_views=2),
)
optimizer = dict(lr=3e-4)
total_epochs = 60
work_dir = "work_dirs/iwin_base_patch244_window1677_sthv2"
