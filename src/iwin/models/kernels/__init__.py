"""Kernels for GPUs, in Triton: attention within interleaved windows that reads and writes maps in image order.

`ops` holds the operator and says when it applies, `window_attention` the kernels, which are imported when one runs:
PyTorch brings Triton on Linux alone.
"""
