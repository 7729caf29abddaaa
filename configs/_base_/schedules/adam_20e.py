# Adam for 20 epochs, a tenth of the rate after every 10. The rate is meant for one GPU.
optimizer = dict(type="Adam", lr=0.01, weight_decay=1e-5)
optimizer_config = dict(grad_clip=dict(max_norm=40, norm_type=2))
lr_config = dict(policy="step", step=10)
total_epochs = 20
