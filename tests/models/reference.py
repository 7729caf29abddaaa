"""The Iwin block in its textbook form, slow and plain: what the fast path must equal.

It uses the same modules (and so the same weights) as `IwinBlock`, gathers every window by its definition, and spells
the attention out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from iwin.models.iwin import IwinBlock, WindowAttention


def reference_attention(attention: WindowAttention, tokens: Tensor) -> Tensor:
    """Softmax attention over tokens (N, C) of one window."""
    heads = attention.num_heads
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in attention.qkv(tokens).chunk(3, dim=-1))
    scale = q.shape[-1] ** -0.5 if attention.scale is None else attention.scale
    weights = (scale * q @ k.transpose(1, 2)).softmax(dim=-1)
    return attention.proj((weights @ v).transpose(0, 1).flatten(1))


def reference_block(block: IwinBlock, x: Tensor) -> Tensor:
    """The block's output for x (B, T, H, W, C) in evaluation mode."""
    height, width = x.shape[2:4]
    rows, columns = min(block.window_size[0], height), min(block.window_size[1], width)
    y = F.pad(block.norm1(x), (0, 0, 0, -width % columns, 0, -height % rows))
    mixed = torch.zeros_like(y)
    step_h, step_w = y.shape[2] // rows, y.shape[3] // columns
    for sample in range(len(y)):
        for a in range(step_h):
            for b in range(step_w):
                window = y[sample, :, a::step_h, b::step_w]
                attended = reference_attention(block.attn, window.flatten(0, 2))
                mixed[sample, :, a::step_h, b::step_w] = attended.view_as(window)
    if block.dwconv is not None:
        frames = y.flatten(0, 1).permute(0, 3, 1, 2)
        mixed = mixed + block.dwconv.depthwise(frames).permute(0, 2, 3, 1).view_as(y)
    x = x + mixed[:, :, :height, :width]
    return x + block.mlp(block.norm2(x))
