# How every published Iwin recipe trains: AdamW, cosine over 30 epochs after 2.5 epochs of warm-up, mixed precision,
# 8 GPUs x 8 videos. The rate belongs to that batch of 64; scale it with the batch.
#
# Of custom_keys the longest match wins, so everything in the backbone, norms too, has a tenth of the rate and the full
# weight decay; only the head has the full rate. The two table names are of other backbones; they match nothing.
optimizer = dict(
    type="AdamW",
    lr=1e-3,
    betas=(0.9, 0.999),
    weight_decay=0.05,
    paramwise_cfg=dict(
        custom_keys={
            "absolute_pos_embed": dict(decay_mult=0.0),
            "relative_position_bias_table": dict(decay_mult=0.0),
            "norm": dict(decay_mult=0.0),
            "backbone": dict(lr_mult=0.1),
        }
    ),
)
# The 8 videos of a GPU go through the model in update_interval equal parts: 8 means one by one.
optimizer_config = dict(
    type="DistOptimizerHook", update_interval=8, grad_clip=None, coalesce=True, bucket_size_mb=-1, use_fp16=True
)
fp16 = None  # mmcv's other way to mixed precision; use_fp16 above is what counts
lr_config = dict(policy="CosineAnnealing", min_lr=0, warmup="linear", warmup_by_epoch=True, warmup_iters=2.5)
total_epochs = 30
evaluation = dict(interval=5, metrics=["top_k_accuracy", "mean_class_accuracy"])
find_unused_parameters = False
