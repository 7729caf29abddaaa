"""Kernels for CPUs, compiled where they run: attention within interleaved windows at head dimension 32.

PyTorch's own attention on CPUs is far from a core's rate at this head dimension, farthest in bf16. `attention.cpp` is
compiled once a machine, in a few seconds, by its C++ compiler. Where there is none, or a CPU without AVX-512, the model
takes PyTorch's attention; the results agree.
"""
