"""What the kernels share: their precisions, and when they run."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iwin.models.surroundings import compute_dtype, constant_in_graphs, needs_pytorch
from iwin.native import has, library

SOURCE = Path(__file__).parent
"""The kernels of the model: all in one library, since some are made of others."""

NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
"""How the kernels' names end, by precision."""

MULTIPLE = 8
"""What the channels of maps divide by that the kernels take; attention takes any."""

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def runs(kernel: str, x: Tensor) -> bool:
    """Whether a kernel runs on x, by its device and precision, on this machine."""
    if needs_pytorch() or x.device.type != "cpu":
        return False
    dtype = compute_dtype(x)
    return dtype in NAMES and exists(f"{kernel}_{NAMES[dtype]}")


@constant_in_graphs
def exists(kernel: str) -> bool:
    """Whether this machine has a kernel by its whole name."""
    return has(SOURCE, kernel)


def call(name: str, *arguments: Tensor | float | ctypes.Array[Any] | ctypes.Structure | None) -> None:
    """Run a kernel on pointers to contiguous tensors, or to none, to arrays and structures, and on numbers.

    Its first call says which of them are floats: others must have theirs at the same places.

    Raises:
        RuntimeError: if there is not enough memory for what it makes on its way.
    """
    words = [argument if isinstance(argument, int | float) else pointer_to(argument) for argument in arguments]
    kernel = getattr(library(SOURCE), name)
    if kernel.argtypes is None:
        kernel.argtypes = [ctypes.c_float if isinstance(word, float) else ctypes.c_ssize_t for word in words]
    if not kernel(*words):
        raise RuntimeError(f"not enough memory for the kernel {name}; fewer or smaller clips at a time take less")


def pointer_to(what: Tensor | ctypes.Array[Any] | ctypes.Structure | None) -> int:
    """The address of what a kernel reads or writes; 0 for nothing."""
    if what is None:
        return 0
    return what.data_ptr() if isinstance(what, Tensor) else ctypes.addressof(what)


def pointers_to(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """The addresses of contiguous tensors, in an array; 0 for nothing. They must be there as long as it is read."""
    return (ctypes.c_void_p * len(tensors))(*map(pointer_to, tensors))


def numbers_of(weights: Tensor | None) -> Tensor | None:
    """Weights as the kernels read those that are few: in fp32, contiguous."""
    return None if weights is None else weights.float().contiguous()


def sizes_of(x: Tensor) -> tuple[int, int]:
    """Rows and channels of x (..., C), as the kernels take it."""
    return x.numel() // x.shape[-1], x.shape[-1]


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether tensors are no more than their data, and nobody looks at operators, which kernels may do without."""
    if torch._C._len_torch_dispatch_stack():
        return False
    return all(tensor is None or (type(tensor) in (Tensor, nn.Parameter) and not tensor.is_neg()) for tensor in tensors)


def reads(kernel: str, *tensors: Tensor | None) -> bool:
    """Whether this machine has a kernel by its whole name, for tensors that are no more than their data."""
    return is_plain(*tensors) and exists(kernel)


def fit(parameters: Sequence[Tensor | None], sizes: Sequence[tuple[int, ...]]) -> bool:
    """Whether parameters are plain, of these sizes, and in the CPU's memory, for those of them that there are."""
    for parameter, size in zip(parameters, sizes, strict=True):
        if parameter is not None and (parameter.shape != size or parameter.device.type != "cpu"):
            return False
    return is_plain(*parameters)


def readable(grad: Tensor) -> Tensor:
    """A gradient as kernels read it: contiguous, and its numbers in memory, not their negatives."""
    return grad.resolve_neg().contiguous()


def infers(x: Tensor) -> bool:
    """Whether x goes through a layer on a CPU eagerly, without gradients, in a precision that oneDNN has there."""
    return not torch.is_grad_enabled() and multiplies(x)


def multiplies(x: Tensor) -> bool:
    """Whether x goes through a layer on a CPU eagerly, in a precision that oneDNN has there."""
    if x.device.type != "cpu" or not _HAS_ONEDNN:
        return False
    if torch.compiler.is_compiling() or needs_pytorch():
        return False
    dtype = compute_dtype(x)
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_half("bf16"))


def has_half(precision: str) -> bool:
    """Whether oneDNN multiplies in bf16 or fp16 on this CPU, by what PyTorch says."""
    return _HAS_ONEDNN and bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported")())
