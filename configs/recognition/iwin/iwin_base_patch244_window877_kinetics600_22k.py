# Iwin-B on Kinetics-600, from ImageNet-22K weights: the second published name of
# iwin_base_patch244_window77_kinetics600_22k.
#
# Paper:    Iwin Transformer: Hierarchical Vision Transformer using Interleaved Windows, arXiv 2507.18405
# Accuracy: not published
# Hardware: 8 GPUs x 8 clips
# Command:  torchrun --nproc-per-node 8 -m iwin train iwin_base_patch244_window877_kinetics600_22k \
#               --cfg-options model.backbone.pretrained=<ImageNet-22K weights of Iwin-B>
_base_ = "iwin_base_patch244_window77_kinetics600_22k.py"

work_dir = "work_dirs/iwin_base_patch244_window877_kinetics600_22k"
