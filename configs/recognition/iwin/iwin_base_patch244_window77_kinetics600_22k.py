# Iwin-B on Kinetics-600, from ImageNet-22K weights.
#
# Paper:    Iwin Transformer: Hierarchical Vision Transformer using Interleaved Windows, arXiv 2507.18405
# Accuracy: not published
# Hardware: 8 GPUs x 8 clips
# Command:  torchrun --nproc-per-node 8 -m iwin train iwin_base_patch244_window77_kinetics600_22k \
#               --cfg-options model.backbone.pretrained=<ImageNet-22K weights of Iwin-B>
_base_ = [
    "../../_base_/models/iwin/iwin_base.py",
    "../../_base_/datasets/kinetics600_32x2.py",
    "../../_base_/schedules/iwin_adamw_30e.py",
    "../../_base_/default_runtime.py",
]

model = dict(
    backbone=dict(patch_size=(2, 4, 4), drop_path_rate=0.2),
    cls_head=dict(num_classes=600),
    test_cfg=dict(max_testing_views=2),
)
optimizer = dict(lr=3e-4)
work_dir = "work_dirs/iwin_base_patch244_window77_kinetics600_22k"
