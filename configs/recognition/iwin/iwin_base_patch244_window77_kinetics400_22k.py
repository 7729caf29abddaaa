# Iwin-B on Kinetics-400, from ImageNet-22K weights.
#
# Paper:    Iwin Transformer: Hierarchical Vision Transformer using Interleaved Windows, arXiv 2507.18405
# Accuracy: not published
# Hardware: 8 GPUs x 8 clips
# Command:  torchrun --nproc-per-node 8 -m iwin train iwin_base_patch244_window77_kinetics400_22k \
#               --cfg-options model.backbone.pretrained=<ImageNet-22K weights of Iwin-B>
_base_ = "iwin_base_patch244_window77_kinetics400_1k.py"

model = dict(backbone=dict(drop_path_rate=0.2), test_cfg=dict(max_testing_views=2))
optimizer = dict(lr=3e-4)
work_dir = "work_dirs/iwin_base_patch244_window77_kinetics400_22k"
