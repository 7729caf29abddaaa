# What a run writes down and where it starts, unless a config says otherwise.
checkpoint_config = dict(interval=1)
log_config = dict(interval=20, hooks=[dict(type="TextLoggerHook")])  # add dict(type="TensorboardLoggerHook") for curves
dist_params = dict(backend="nccl")
log_level = "INFO"
load_from = None
resume_from = None
workflow = [("train", 1)]
