"""Kernels for GPUs, in Triton: attention on maps in image order, LayerNorm, and a linear layer with its GELU.

`ops` holds the operators and says when they apply, `layers` what takes the place of PyTorch's layers. The kernels, a
file each, are imported when one runs: PyTorch brings Triton on Linux alone.
"""
