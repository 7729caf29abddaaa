"""The Video Iwin Transformer in its textbook form: what the fast model must equal, and what it is measured against.

Paper: Simin Huo and Ning Li, arXiv 2507.18405. It follows the paper's steps one by one, as the authors' model does:
channels first between the blocks; a block pads the map, rearranges it so that each interleaved window becomes a plain
one, cuts the windows, spells attention out as softmax(q k^T) v, puts the windows together and rearranges them back.
Parameters have the names of `iwin.models`, so `load_state_dict` shares weights both ways.

This file needs PyTorch alone. It has no dropout and no stochastic depth, which change nothing in evaluation.

Letters: B batch, C channels, T time steps, H rows, W columns, I x J windows of a frame, R x S positions of a window.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def rearrange(x: Tensor, windows: tuple[int, int]) -> Tensor:
    """Bring each interleaved window of x (B, T, H, W, C) together: row r I + i goes to i R + r, columns likewise."""
    B, T, H, W, C = x.shape
    I, J = windows
    x = x.view(B, T, H // I, I, W, C).transpose(2, 3).reshape(B, T, H, W, C)
    return x.view(B, T, H, W // J, J, C).transpose(3, 4).reshape(B, T, H, W, C)


def restore(x: Tensor, windows: tuple[int, int]) -> Tensor:
    """Undo `rearrange`."""
    B, T, H, W, C = x.shape
    I, J = windows
    x = x.view(B, T, I, H // I, W, C).transpose(2, 3).reshape(B, T, H, W, C)
    return x.view(B, T, H, J, W // J, C).transpose(3, 4).reshape(B, T, H, W, C)


def partition(x: Tensor, windows: tuple[int, int]) -> Tensor:
    """Cut x (B, T, H, W, C) into plain windows (B * I * J, T * R * S, C)."""
    B, T, H, W, C = x.shape
    I, J = windows
    x = x.view(B, T, I, H // I, J, W // J, C).permute(0, 2, 4, 1, 3, 5, 6)
    return x.reshape(B * I * J, T * (H // I) * (W // J), C)


def assemble(x: Tensor, windows: tuple[int, int], shape: Sequence[int]) -> Tensor:
    """Undo `partition`; shape is (B, T, H, W, C)."""
    B, T, H, W, C = shape
    I, J = windows
    return x.view(B, I, J, T, H // I, W // J, C).permute(0, 3, 1, 4, 2, 5, 6).reshape(B, T, H, W, C)


class Attention(nn.Module):
    """Multi-head self-attention within each window."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows x (windows, N, C); same shape out."""
        windows, N, C = x.shape
        q, k, v = self.qkv(x).view(windows, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (self.scale * q @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(windows, N, C))


class DepthwiseConv(nn.Module):
    """3x3 depthwise convolution on each frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, T, H, W, C); same shape out."""
        B, T, H, W, C = x.shape
        frames = x.reshape(B * T, H, W, C).permute(0, 3, 1, 2).contiguous()
        return self.depthwise(frames).permute(0, 2, 3, 1).reshape(B, T, H, W, C)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C); same shape out."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Interleaved-window attention beside a depthwise convolution, then an MLP, each with a residual."""

    def __init__(self, dim: int, heads: int, *, window_size: tuple[int, int] = (7, 7), dwconv: bool = True) -> None:
        super().__init__()
        self.window_size = window_size
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.dwconv = DepthwiseConv(dim) if dwconv else None

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, H, W, C); same shape out."""
        height, width = x.shape[2:4]
        rows, columns = min(self.window_size[0], height), min(self.window_size[1], width)
        y = F.pad(self.norm1(x), (0, 0, 0, -width % columns, 0, -height % rows))
        windows = y.shape[2] // rows, y.shape[3] // columns
        attended = self.attn(partition(rearrange(y, windows), windows))
        mixed = restore(assemble(attended, windows, y.shape), windows)
        if self.dwconv is not None:
            mixed = mixed + self.dwconv(y)
        x = x + mixed[:, :, :height, :width].contiguous()
        return x + self.mlp(self.norm2(x))


class Downsample(nn.Module):
    """LayerNorm, then a 3x3 convolution of stride 2 on each frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.conv = nn.Conv2d(dim, 2 * dim, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, H, W, C) to (B, T, ceil(H / 2), ceil(W / 2), 2 C)."""
        B, T, H, W, C = x.shape
        frames = self.norm(x).reshape(B * T, H, W, C).permute(0, 3, 1, 2)
        frames = F.pad(frames, (0, 1 + W % 2, 0, 1 + H % 2)).contiguous()
        frames = self.conv(frames).permute(0, 2, 3, 1)
        return frames.reshape(B, T, *frames.shape[1:])


class PatchEmbed(nn.Module):
    """Non-overlapping patches (2, 4, 4) of a clip, projected by a convolution, then LayerNorm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, (2, 4, 4), stride=(2, 4, 4))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map a clip x (B, 3, T, H, W) to (B, C, T', H', W')."""
        T, H, W = x.shape[2:]
        x = self.proj(F.pad(x, (0, -W % 4, 0, -H % 4, 0, -T % 2)))
        shape = x.shape[2:]
        return self.norm(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, shape)


class Stage(nn.Module):
    """Blocks of one resolution and the way down to the next."""

    def __init__(self, blocks: Sequence[Block], downsample: Downsample | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.use_checkpoint = False

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, T, H, W) to the next stage's input."""
        x = x.permute(0, 2, 3, 4, 1).contiguous()
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.use_checkpoint else block(x)
        x = x if self.downsample is None else self.downsample(x)
        return x.permute(0, 4, 1, 2, 3).contiguous()


class Backbone(nn.Module):
    """The whole backbone.

    Args:
        embed_dim: channels of the first stage; each further stage doubles them.
        depths: blocks in each stage.
        num_heads: attention heads in each stage.
        num_frames: clip length of `time_embed`; the model takes clips of this length.
    """

    def __init__(self, *, embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], num_frames: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(embed_dim)
        self.time_embed = nn.Parameter(torch.zeros(1, embed_dim, -(-num_frames // 2), 1, 1))
        self.layers = nn.ModuleList()
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            dim = embed_dim * 2**stage
            last = stage == len(depths) - 1
            blocks = [Block(dim, heads, dwconv=not last) for _ in range(depth)]
            self.layers.append(Stage(blocks, None if last else Downsample(dim)))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, T', H', W') of normalised clips x (B, 3, T, H, W)."""
        x = self.patch_embed(x) + self.time_embed
        for stage in self.layers:
            x = stage(x)
        return self.norm(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class Head(nn.Module):
    """Global average, then a linear classifier."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.fc_cls = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of features x (B, C, T', H', W')."""
        return self.fc_cls(x.mean(dim=(2, 3, 4)))


class ReferenceRecognizer(nn.Module):
    """The video recogniser; parameters are named as in `iwin.models.recognizer.IwinRecognizer`.

    Args:
        num_classes: classes.
        embed_dim, depths, num_heads, num_frames: see `Backbone`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        num_frames: int = 32,
        num_classes: int = 400,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(embed_dim=embed_dim, depths=depths, num_heads=num_heads, num_frames=num_frames)
        self.cls_head = Head(embed_dim * 2 ** (len(depths) - 1), num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalised clips (B, 3, T, H, W) of `num_frames` frames."""
        return self.cls_head(self.backbone(clips))
