# Iwin-L (arXiv 2507.18405) with a head for the 400 classes of Kinetics-400.
# The recipes change the patch to (2, 4, 4) and the drop path rate to their own.
model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="IwinTransformer3D",
        patch_size=(4, 4, 4),
        embed_dim=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=(7, 7),
        mlp_ratio=4.0,
        qkv_bias=True,
        qk_scale=None,
        drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.2,
        patch_norm=True,
    ),
    cls_head=dict(type="I3DHead", in_channels=1536, num_classes=400, spatial_type="avg", dropout_ratio=0.5),
    test_cfg=dict(average_clips="prob"),
)
