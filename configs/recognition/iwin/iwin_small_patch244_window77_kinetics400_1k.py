# Iwin-S on Kinetics-400, from ImageNet-1K weights.
#
# Paper:    Iwin Transformer: Hierarchical Vision Transformer using Interleaved Windows, arXiv 2507.18405
# Accuracy: 80.0 top-1, 94.1 top-5, 12 views of 32 x 224 x 224 (reported by the authors)
# Hardware: 8 GPUs x 8 clips
# Command:  torchrun --nproc-per-node 8 -m iwin train iwin_small_patch244_window77_kinetics400_1k \
#               --cfg-options model.backbone.pretrained=<ImageNet-1K weights of Iwin-S>
_base_ = [
    "../../_base_/models/iwin/iwin_small.py",
    "../../_base_/datasets/kinetics400_32x2.py",
    "../../_base_/schedules/iwin_adamw_30e.py",
    "../../_base_/default_runtime.py",
]

model = dict(backbone=dict(patch_size=(2, 4, 4), drop_path_rate=0.1), test_cfg=dict(max_testing_views=4))
optimizer = dict(weight_decay=0.02)
evaluation = dict(interval=15)
work_dir = "work_dirs/iwin_small_patch244_window77_kinetics400_1k"
