# Iwin-nano: embedding of 24 channels, 1-1-2-1 blocks, 1-2-4-8 heads; ours, for demos and small data. Clips of 16 frames;
# the classes are counted in the training data.
model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="IwinTransformer3D",
        patch_size=(2, 4, 4),
        embed_dim=24,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 4, 8],
        window_size=(7, 7),
        drop_path_rate=0.0,
        patch_norm=True,
        num_frames=16,
    ),
    cls_head=dict(type="I3DHead", num_classes=None, dropout_ratio=0.0),
    test_cfg=dict(average_clips="prob", max_testing_views=6),
)
