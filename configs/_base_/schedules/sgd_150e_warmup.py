# SGD for 150 epochs with 10 epochs of warm-up, a tenth of the rate after 90 and 130. The rate is meant for 8 GPUs.
optimizer = dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4)
optimizer_config = dict(grad_clip=dict(max_norm=40, norm_type=2))
lr_config = dict(policy="step", step=[90, 130], warmup="linear", warmup_by_epoch=True, warmup_iters=10)
total_epochs = 150
