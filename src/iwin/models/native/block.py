"""All of a block in one call, forward and backward.

Each call of a kernel from Python takes some tens of microseconds, as long as many a kernel on a small map. A block
takes ten of them forward and sixteen backward.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from iwin.models.native import depthwise
from iwin.models.native.attention import has_heads, softmax_of
from iwin.models.native.common import (
    MULTIPLE,
    NAMES,
    call,
    exists,
    fit,
    pointer_to,
    pointers_to,
    readable,
    reads,
    sizes_of,
)
from iwin.models.surroundings import compute_dtype, needs_pytorch
from iwin.models.windows import Windows


class Layers(NamedTuple):
    """What a block consists of.

    Attributes:
        norm1: before attention and the convolution.
        qkv: projection to queries, keys and values.
        proj: projection of what attention finds.
        conv: depthwise convolution, if the block has one.
        norm2: before the MLP.
        wide: the MLP's first layer; GELU follows.
        narrow: its second.
        heads: attention heads.
        scale: scale of the attention products.
    """

    norm1: nn.LayerNorm
    qkv: nn.Linear
    proj: nn.Linear
    conv: nn.Conv2d | None
    norm2: nn.LayerNorm
    wide: nn.Linear
    narrow: nn.Linear
    heads: int
    scale: float

    def parameters(self) -> list[Tensor | None]:
        """Weight and bias of each layer, in the order of the kernels."""
        parameters: list[Tensor | None] = []
        for layer in self[:7]:
            parameters += [None, None] if layer is None else [layer.weight, layer.bias]
        return parameters


def runs(x: Tensor) -> bool:
    """Whether x goes through a block on a CPU, eagerly, and nothing asks for PyTorch's operators."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not needs_pytorch()


def takes(x: Tensor, layers: Layers) -> bool:
    """Whether `apply` does to x, which `runs` accepts, what these layers do, of which nobody may look at the calls."""
    if x.ndim != 5 or not x.numel():
        return False
    parameters = layers.parameters()
    if not reads(f"block_{_kernel(x, parameters)}", x):
        return False
    if any(weights is None for norm in (layers.norm1, layers.norm2) for weights in (norm.weight, norm.bias)):
        return False
    C, hidden = x.shape[-1], len(layers.wide.weight)
    if not has_heads(C, layers.heads) or C % MULTIPLE or not hidden or hidden % MULTIPLE:
        return False
    if layers.conv is not None and not depthwise.takes(x, layers.conv):
        return False
    norm, conv = [(C,), (C,)], [(C, 1, 3, 3), (C,)]
    sizes = [*norm, (3 * C, C), (3 * C,), (C, C), (C,), *conv, *norm, (hidden, C), (hidden,), (C, hidden), (C,)]
    return fit(parameters, sizes)


def apply(x: Tensor, layers: Layers, windows: Windows, shares: Tensor | None = None) -> Tensor:
    """What a block makes of x (B, T, H, W, C), which `takes` accepts.

    Args:
        x: a map.
        layers: the block's.
        windows: the windows of the map.
        shares: float32 (2, B), what each sample's branches are multiplied by, as stochastic depth does; None for 1.

    Returns:
        Like x.
    """
    x, C = x.contiguous(), x.shape[-1]
    parameters = layers.parameters()
    settings = _Settings(
        (ctypes.c_long * 11)(*x.shape[:4], layers.heads, C // layers.heads, *windows, len(layers.wide.weight)),
        (ctypes.c_float * 3)(layers.scale, layers.norm1.eps, layers.norm2.eps),
        pointer_to(shares),
    )
    if torch.is_grad_enabled():
        made: Tensor = _Block.apply(x, settings, shares, *parameters)
        return made
    out = torch.empty_like(x)
    given = [None if parameter is None else parameter.contiguous() for parameter in parameters]
    call(f"block_{_kernel(x, parameters)}", x, pointers_to(given), None, out, settings)
    return out


def forget_room() -> None:
    """Give back the memory that stays with this thread from pass to pass without gradients."""
    if exists("forget_room"):
        call("forget_room")


class _Settings(ctypes.Structure):
    """Sizes and numbers of a block, as the kernels take them."""

    _fields_ = (("sizes", ctypes.c_long * 11), ("numbers", ctypes.c_float * 3), ("shares", ctypes.c_void_p))


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: _Settings, shares: Tensor | None, *parameters: Tensor | None) -> Tensor:
        ctx.settings, ctx.shares = settings, shares
        ctx.kernel = _kernel(x, parameters)
        kept, out = _room(x, settings), torch.empty_like(x)
        given = [None if parameter is None else parameter.contiguous() for parameter in parameters]
        call(f"block_{ctx.kernel}", x, pointers_to(given), pointers_to(kept), out, settings)
        ctx.save_for_backward(x, *kept, *parameters)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _, _, _, *wanted = ctx.needs_input_grad
        x, *others = ctx.saved_tensors
        kept, parameters = others[: -len(wanted)], others[-len(wanted) :]
        of_x = torch.empty_like(x)
        gradients: list[Tensor | None] = []
        for weight, *which in zip(parameters[::2], wanted[::2], wanted[1::2], strict=True):
            if any(which):
                gradients += [weight.new_empty(size, dtype=torch.float32) for size in (weight.shape, weight.shape[:1])]
            else:
                gradients += [None, None]
        given = [None if parameter is None else parameter.contiguous() for parameter in parameters]
        pointers = pointers_to(given), pointers_to(kept)
        made = of_x, pointers_to(gradients)
        call(f"block_backward_{ctx.kernel}", x, *pointers, readable(grad), *made, ctx.settings)
        # Autograd turns them to the precision of what was given.
        return of_x, None, None, *(of if needed else None for of, needed in zip(gradients, wanted, strict=True))


def _room(x: Tensor, settings: _Settings) -> list[Tensor]:
    """For what the forward pass leaves to the backward pass, in the kernels' order."""
    *_, heads, _, down, across, rows, columns, hidden = settings.sizes
    softmax = softmax_of(x.shape[:4], Windows(down, across, rows, columns), heads)
    (places, channels), dtype = sizes_of(x), compute_dtype(x)

    def room(*size: int, kind: torch.dtype = torch.float32) -> Tensor:
        return x.new_empty(size, dtype=kind)

    return [
        room(places, 3 * channels, kind=dtype),
        room(places, channels, kind=dtype),
        room(*softmax),
        room(places, 2),
        room(places, channels, kind=x.dtype),
        room(places, 2),
        room(places, hidden, kind=dtype),
    ]


def _kernel(x: Tensor, parameters: Sequence[Tensor | None]) -> str | None:
    """How the kernels' names end, by the precisions of maps, products and parameters; None where those differ."""
    kinds = {parameter.dtype for parameter in parameters if parameter is not None}
    names = [NAMES.get(dtype) for dtype in (x.dtype, compute_dtype(x), *kinds)]
    return "_".join(map(str, names)) if len(kinds) == 1 else None
