"""The patch embedding in one call, forward and backward: PyTorch makes several copies of a clip on the way."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from iwin.models.native.common import MULTIPLE, NAMES, call, fit, multiplies, numbers_of, pointers_to, readable, reads
from iwin.models.native.tokens import fits
from iwin.models.surroundings import compute_dtype, is_watched


def takes(x: Tensor, proj: nn.Conv2d | nn.Conv3d, norm: nn.LayerNorm, plus: Tensor | None = None) -> bool:
    """Whether `apply` does to clips x (B, 3, T, H, W) what these layers do, of which nobody may look at the calls.

    It has no gradient of x, which it keeps for those of the layers, as inference tensors cannot be.
    """
    if type(proj) not in (nn.Conv2d, nn.Conv3d) or proj.bias is None or is_watched(proj, norm):
        return False
    if not x.numel() or not multiplies(x) or (torch.is_grad_enabled() and (x.requires_grad or x.is_inference())):
        return False
    if not reads(f"embed_{_pair(x)}", x, plus):
        return False
    outs, patch = len(proj.weight), proj.stride
    if not fits(outs, norm) or not fit([proj.weight, proj.bias], [(outs, x.shape[1], *patch), (outs,)]):
        return False
    if outs % MULTIPLE or proj.weight[0].numel() % MULTIPLE:
        return False
    dtype, parameters = _maps(x), [proj.weight, proj.bias, norm.weight, norm.bias, plus]
    return all(parameter is None or parameter.dtype == dtype for parameter in parameters)


def apply(x: Tensor, proj: nn.Conv2d | nn.Conv3d, norm: nn.LayerNorm, plus: Tensor | None = None) -> Tensor:
    """What these layers make of clips, which `takes` accepts: each patch projected, then normalised.

    Args:
        x: (B, 3, T, H, W), filled up with zeros to whole patches.
        proj: its kernel is a patch.
        norm: of a patch's channels.
        plus: (T', C), what is added to the result.

    Returns:
        (B, T', H', W', C), in the precision of the norm's result: under autocast float32.
    """
    pair = _pair(x)
    patch = (1, *proj.kernel_size)[-3:]
    sizes = (*x.shape, *patch, len(proj.weight))
    shift = norm.bias.float().expand(-(-x.shape[2] // patch[0]), -1)
    shift = shift if plus is None else shift + plus
    x = x.to(_maps(x))
    assert proj.bias is not None
    given = (pair, sizes, norm.eps, x, proj.weight, proj.bias, norm.weight, shift)
    if torch.is_grad_enabled():
        made: Tensor = _Embed.apply(*given)
        return made
    return _embed(*given)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pair: str, sizes: Sequence[int], eps: float, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.pair, ctx.sizes, ctx.eps = pair, sizes, eps
        ctx.save_for_backward(x, *weights)
        return _embed(pair, sizes, eps, x, *weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        gradients = [torch.empty(weight.shape, dtype=torch.float32) for weight in weights]
        given = [numbers_of(weight) for weight in weights]
        layers, sizes = (x.contiguous(), pointers_to(given), float(ctx.eps)), (ctypes.c_long * 9)(*ctx.sizes)
        call(f"embed_backward_{ctx.pair}", *layers, readable(grad), pointers_to(gradients), sizes)
        return None, None, None, None, *gradients  # autograd turns them to the precision of what was given


def _embed(pair: str, sizes: Sequence[int], eps: float, x: Tensor, *weights: Tensor) -> Tensor:
    batch, _, *clip, t, h, w, channels = sizes
    positions = [-(-side // length) for side, length in zip(clip, (t, h, w), strict=True)]
    out = x.new_empty(batch, *positions, channels)
    given = [numbers_of(weight) for weight in weights]
    call(f"embed_{pair}", x.contiguous(), pointers_to(given), float(eps), out, (ctypes.c_long * 9)(*sizes))
    return out


def _pair(x: Tensor) -> str:
    """How the kernels' names end: by the precisions of maps and of products."""
    return f"{NAMES.get(_maps(x))}_{NAMES.get(compute_dtype(x))}"


def _maps(x: Tensor) -> torch.dtype:
    """The precision of all but products, for which autocast has its own."""
    return torch.float32 if torch.is_autocast_enabled("cpu") else x.dtype
