"""Kernels for CPUs, compiled where they run: attention, products, the depthwise convolution, LayerNorm, GELU and sums.

PyTorch's own attention on CPUs is far from a core's rate at 32 channels a head, farthest in bf16; what it does between
the products takes several passes. Each C++ file here is compiled once a machine, in a few seconds, by its compiler.
Where there is none, or a CPU without AVX2, the model takes PyTorch's operators; the results agree.
"""
