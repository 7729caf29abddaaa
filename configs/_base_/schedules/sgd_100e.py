# SGD for 100 epochs, a tenth of the rate after 40 and 80. The rate is meant for 8 GPUs.
optimizer = dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4)
optimizer_config = dict(grad_clip=dict(max_norm=40, norm_type=2))
lr_config = dict(policy="step", step=[40, 80])
total_epochs = 100
