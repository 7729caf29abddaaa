"""A block of the Iwin Transformer and its layers.

Letters: B batch, T frames (after the patch embedding: time steps), H rows, W columns, C channels,
I x J windows of a frame, N tokens of a window, M attention heads, D channels of a head.
"""

from types import ModuleType, NoneType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iwin.errors import ModelError
from iwin.models.kernels import ops as triton_kernels
from iwin.models.kernels.layers import LayerNorm, widen
from iwin.models.native import attention as native_kernels
from iwin.models.native import block as whole
from iwin.models.native import depthwise, mlp
from iwin.models.native.common import infers
from iwin.models.native.linear import Linear
from iwin.models.surroundings import is_gelu, is_watched
from iwin.models.windows import Windows, deinterleave, interleave, pad_to_windows, windows_of

FUSED_ATTENTION: tuple[ModuleType, ...] = (triton_kernels, native_kernels)
"""Kernels that attend within windows straight from image order; PyTorch's attention computes what they do not take."""

Kinds = dict[nn.Module, type[nn.Module]]
"""Layers, and as what they were made."""


class WindowAttention(nn.Module):
    """Multi-head self-attention within each window: no mask, no position bias.

    Args:
        dim: channels.
        num_heads: attention heads; divides `dim`.
        qkv_bias: whether query, key and value have a bias.
        qk_scale: scale of the products; None means head_dim ** -0.5.
        attn_drop: dropout on the attention weights.
        proj_drop: dropout on the output.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ModelError(f"{dim} channels do not divide into {num_heads} attention heads; choose another num_heads")
        if qk_scale is not None and qk_scale < 0:
            raise ModelError(f"qk_scale is {qk_scale}; it takes a number above 0, or None for head_dim ** -0.5")
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.attn_drop = attn_drop
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Attend within the windows of a map x (B, T, H, W, C), with zeros where they go beyond it; same shape out."""
        height, width = x.shape[2:4]
        dropout = self.attn_drop if self.training else 0.0
        kernels = next((kernels for kernels in FUSED_ATTENTION if kernels.takes(x, self.num_heads)), None)
        if kernels is not None and not dropout:
            if type(self.qkv) is Linear and not is_watched(self.qkv):
                fill = self.qkv.bias  # what it makes of zeros
            else:  # a layer that somebody put in, or looks at, gets them
                x, fill = pad_to_windows(x, windows), None
            x = kernels.interleaved_attention(self.qkv(x), windows, heads=self.num_heads, scale=self.scale, fill=fill)
        else:
            x = pad_to_windows(x, windows)
            qkv = self.qkv(interleave(x, windows.counts))
            q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=self.scale)
            x = deinterleave(attended.transpose(1, 2).flatten(2), windows.counts, x.shape)  # from (windows, M, N, D)
        return self.proj_drop(self.proj(x[:, :, :height, :width]))


class DepthwiseConv(nn.Module):
    """3x3 depthwise convolution with bias on each frame, added to another branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, plus: Tensor) -> Tensor:
        """Convolve x (B, T, H, W, C) and add `plus`, of the same shape as x and as the result."""
        if depthwise.takes(x, self.depthwise):
            return depthwise.convolve(x, self.depthwise.weight, self.depthwise.bias, plus)
        frames = x.flatten(0, 1).permute(0, 3, 1, 2)  # channels-last memory, so cuDNN and oneDNN take it as it is
        return self.depthwise(frames).permute(0, 2, 3, 1).unflatten(0, x.shape[:2]) + plus


class Mlp(nn.Module):
    """Two linear layers with a GELU (erf form) between them."""

    def __init__(self, dim: int, hidden: int, *, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C); same shape out."""
        if mlp.takes(x, self.fc1, self.act, self.drop, self.fc2):
            return mlp.apply(x, self.fc1, self.fc2)
        return self.drop(self.fc2(self.drop(widen(x, self.fc1, self.act))))


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, leave a residual branch out for some samples.

    torchvision has the same as StochasticDepth, but importing torchvision takes as long as importing PyTorch.

    Args:
        p: probability of leaving a sample's branch out; what remains is scaled by 1 / (1 - p).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Map a branch's output x (B, ...); same shape out."""
        if not self.drops():
            return x
        return x * self.draw(x).to(x.dtype).view(-1, *[1] * (x.ndim - 1))

    def drops(self) -> bool:
        """Whether it leaves out anything."""
        return self.training and self.p > 0

    def draw(self, x: Tensor) -> Tensor:
        """What each of the samples x (B, ...) is multiplied by, float32 (B,)."""
        keep = 1 - self.p
        return x.new_empty(len(x), dtype=torch.float32).bernoulli_(keep).div_(keep)


class IwinBlock(nn.Module):
    """Interleaved-window attention beside a depthwise convolution, then an MLP, each with a residual.

    Args:
        dim: channels.
        num_heads: attention heads.
        window_size: window (rows, columns) in tokens.
        dwconv: whether the block has the depthwise branch; the last stage has none.
        mlp_ratio: hidden width of the MLP over `dim`.
        qkv_bias: whether query, key and value have a bias.
        qk_scale: scale of the attention products; None means head_dim ** -0.5.
        drop: dropout after the projections.
        attn_drop: dropout on the attention weights.
        drop_path: probability of leaving out a residual branch of a sample in training.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window_size: tuple[int, int] = (7, 7),
        dwconv: bool = True,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.norm1 = LayerNorm(dim)
        self.attn = WindowAttention(
            dim, num_heads=num_heads, qkv_bias=qkv_bias, qk_scale=qk_scale, attn_drop=attn_drop, proj_drop=drop
        )
        self.drop_path = DropPath(drop_path)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.dwconv = DepthwiseConv(dim) if dwconv else None

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, H, W, C); same shape out.

        Where no kernel does all of it, on CPUs without gradients, the MLP gets slices of tokens (n, C).
        """
        layers = self._layers() if whole.runs(x) else None
        if layers is not None and whole.takes(x, layers):
            windows = windows_of(x.shape[2], x.shape[3], self.window_size)
            shares = torch.stack([self.drop_path.draw(x) for _ in range(2)]) if self.drop_path.drops() else None
            return whole.apply(x, layers, windows, shares)
        mixed = self.mix_tokens(self.norm1(x))
        if infers(x) and _are_as_made(self._second_half()) and not self.drop_path.drops():
            return mlp.add_mlp(x, mixed, self.norm2, self.mlp)
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def mix_tokens(self, x: Tensor) -> Tensor:
        """Sum of both branches on the normalised map x (B, T, H, W, C); same shape out."""
        height, width = x.shape[2:4]
        attended = self.attn(x, windows_of(height, width, self.window_size))
        # The convolution's own zero padding equals the windows' padding, so it can run on the unpadded map.
        return attended if self.dwconv is None else self.dwconv(x, attended)

    def _layers(self) -> whole.Layers | None:
        """Its layers, for kernels that do all of it in one call.

        None if it does not consist of what it was made of, if a layer drops out, or if somebody looks at their calls.
        """
        attn, mlp_, conv = self.attn, self.mlp, self.dwconv
        if type(self) is not IwinBlock or "mix_tokens" in self.__dict__ or native_kernels not in FUSED_ATTENTION:
            return None
        if type(attn) is not WindowAttention or type(mlp_) is not Mlp or type(conv) not in (NoneType, DepthwiseConv):
            return None
        layers: Kinds = {self.norm1: LayerNorm, attn.qkv: Linear, attn.proj: Linear, attn.proj_drop: nn.Dropout}
        if conv is not None:
            layers |= {conv: DepthwiseConv, conv.depthwise: nn.Conv2d}
        if not _are_as_made({attn: WindowAttention, **layers, **self._second_half()}):
            return None
        if not is_gelu(mlp_.act) or (attn.training and attn.attn_drop):
            return None
        if any(drop.training and drop.p for drop in (attn.proj_drop, mlp_.drop)):
            return None
        depthwise_ = None if conv is None else conv.depthwise
        return whole.Layers(
            self.norm1, attn.qkv, attn.proj, depthwise_, self.norm2, mlp_.fc1, mlp_.fc2, attn.num_heads, attn.scale
        )

    def _second_half(self) -> Kinds:
        """The layers from the first sum on."""
        mlp_ = self.mlp
        layers: Kinds = {self.drop_path: DropPath, self.norm2: LayerNorm, mlp_: Mlp}
        if type(mlp_) is Mlp:
            layers |= {mlp_.fc1: Linear, mlp_.act: nn.GELU, mlp_.fc2: Linear, mlp_.drop: nn.Dropout}
        return layers


def _are_as_made(layers: Kinds) -> bool:
    """Whether layers are of the kinds that they were made as, and nobody looks at their calls."""
    return all(type(layer) is kind for layer, kind in layers.items()) and not is_watched(*layers)
