"""The Iwin Transformer backbone for images and video.

Paper: Simin Huo and Ning Li, "Iwin Transformer: Hierarchical Vision Transformer using Interleaved Windows",
arXiv 2507.18405. State-dict keys are those of the authors' release, so their checkpoints load as they are.

An image is a clip of one frame: the same class serves both. Activations stay channels-last, (B, T, H, W, C), from the
patch embedding to the last norm.

Letters: B batch, T frames (after the patch embedding: time steps), H rows, W columns, C channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iwin.errors import ModelError
from iwin.models.block import IwinBlock
from iwin.models.kernels.layers import FullPrecisionLayerNorm, LayerNorm
from iwin.models.native import downsample, embed
from iwin.models.native.linear import linear
from iwin.models.surroundings import is_watched

# ---------------------------------------------------------------------------------------- between blocks


class Downsample(nn.Module):
    """Halve height and width and double the channels of each frame: LayerNorm, then a 3x3 convolution of stride 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.conv = nn.Conv2d(dim, 2 * dim, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, H, W, C) to (B, T, ceil(H / 2), ceil(W / 2), 2 C)."""
        if type(self.norm) is LayerNorm and downsample.takes(x, self.norm, self.conv):
            return downsample.apply(x, self.norm, self.conv)
        height, width = x.shape[2:4]
        x = F.pad(self.norm(x), (0, 0, 0, 1 + width % 2, 0, 1 + height % 2))  # even, and one more bottom and right
        frames = self.conv(x.flatten(0, 1).permute(0, 3, 1, 2))
        return frames.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class PatchEmbed(nn.Module):
    """Cut a clip into patches and project each to `embed_dim` channels, then LayerNorm.

    Args:
        embed_dim: channels of a patch.
        patch_size: (time, height, width); an image model has time 1, whatever is said here.
        in_chans: channels of the input.
        norm: whether a LayerNorm follows.
        image: whether the projection is an image model's (its weight has no time axis).
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        patch_size: tuple[int, int, int] = (2, 4, 4),
        in_chans: int = 3,
        norm: bool = True,
        image: bool = False,
    ) -> None:
        super().__init__()
        self.patch_size = (1, *patch_size[1:]) if image else patch_size
        self.proj: nn.Conv2d | nn.Conv3d
        if image:
            self.proj = nn.Conv2d(in_chans, embed_dim, patch_size[1:], stride=patch_size[1:])
        else:
            self.proj = nn.Conv3d(in_chans, embed_dim, patch_size, stride=patch_size)
        self.norm = FullPrecisionLayerNorm(embed_dim) if norm else None

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Map a clip x (B, 3, T, H, W), zero-padded at its end to whole patches, to (B, T', H', W', C).

        Args:
            x: the clip.
            plus: (1, T', 1, 1, C), what is added to the result, which is repeated if it has one time step.
        """
        t, h, w = self.patch_size
        still = plus is not None and plus.shape[1] != -(-x.shape[2] // t)  # and is repeated
        if type(self.norm) is FullPrecisionLayerNorm and not still and embed.takes(x, self.proj, self.norm, plus):
            return embed.apply(x, self.proj, self.norm, None if plus is None else plus[0, :, 0, 0])
        padding = (0, -x.shape[4] % w, 0, -x.shape[3] % h, 0, -x.shape[2] % t)
        if any(padding):
            x = F.pad(x, padding)
        # Stride equals kernel, so the convolution is a matrix product over patches and lands channels-last.
        x = x.permute(0, 2, 3, 4, 1).contiguous()  # lets a row of a patch be copied in one piece
        x = x.unflatten(3, (-1, w)).unflatten(2, (-1, h)).unflatten(1, (-1, t))
        x = x.flatten(6).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
        weight = self.proj.weight.view(len(self.proj.weight), -1, t, h, w).permute(0, 2, 3, 4, 1).flatten(1)
        x = linear(x, weight, self.proj.bias)
        x = x if self.norm is None else self.norm(x)
        return x if plus is None else x + plus


class IwinStage(nn.Module):
    """Blocks of one resolution, then the way down to the next.

    Args:
        blocks: the blocks.
        downsample: the way down; the last stage has none.
    """

    def __init__(self, blocks: Sequence[IwinBlock], downsample: Downsample | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.use_checkpoint = False

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, H, W, C) to the next stage's input, or to the same shape in the last stage."""
        for block in self.blocks:
            if self.use_checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x if self.downsample is None else self.downsample(x)


# ---------------------------------------------------------------------------------------- backbone


class IwinTransformer(nn.Module):
    """The Iwin Transformer backbone.

    Args:
        embed_dim: channels of the first stage; each further stage doubles them.
        depths: blocks in each stage.
        num_heads: attention heads in each stage.
        patch_size: patch (time, height, width); an image model has time 1, whatever is said here.
        window_size: window (rows, columns) in tokens; one number for a square.
        num_frames: clip length that `time_embed` is sized for; any other length interpolates it. None makes an image
            model: patches without a time axis and no `time_embed`.
        dwconv_stages: which stages have the depthwise branch; None means all but the last.
        num_positions: size of a learned absolute position embedding (image models of the authors' option `ape`);
            0 has none.
        mlp_ratio: hidden width of the MLPs over their input.
        qkv_bias: whether query, key and value have a bias.
        qk_scale: scale of the attention products; None means head_dim ** -0.5.
        drop_rate: dropout after the embedding, the projections and in the MLPs.
        attn_drop_rate: dropout on the attention weights.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 in the first.
        patch_norm: whether a LayerNorm follows the patch embedding.
        frozen_stages: -1 trains everything, 0 freezes the patch embedding, k > 0 also the first k stages.
        use_checkpoint: gradient checkpointing of every block.

    Raises:
        ModelError: if the settings do not fit each other.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        patch_size: tuple[int, int, int] = (2, 4, 4),
        window_size: tuple[int, int] | int = (7, 7),
        num_frames: int | None = 32,
        dwconv_stages: Sequence[bool] | None = None,
        num_positions: int = 0,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        patch_norm: bool = True,
        frozen_stages: int = -1,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads):
            raise ModelError(f"depths {tuple(depths)} and num_heads {tuple(num_heads)} must name the same stages")
        window_size = (window_size, window_size) if isinstance(window_size, int) else window_size
        if len(window_size) != 2:
            raise ModelError(f"window_size is {window_size}; windows hold all frames, so it takes (rows, columns) only")
        if not 0 <= drop_path_rate < 1 or (num_frames is not None and num_frames < 1):
            raise ModelError(f"drop_path_rate {drop_path_rate} must lie in 0 .. 1, 1 excluded, num_frames from 1 up")
        if not -1 <= frozen_stages <= len(depths):
            raise ModelError(f"frozen_stages is {frozen_stages}; it goes from -1 (none) to {len(depths)} (all stages)")
        self.num_features = embed_dim * 2 ** (len(depths) - 1)
        self.frozen_stages = frozen_stages
        if num_frames is None:
            self.time_embed = None
        else:
            self.time_embed = nn.Parameter(torch.zeros(1, embed_dim, -(-num_frames // patch_size[0]), 1, 1))
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, num_positions, embed_dim)) if num_positions else None
        self.patch_embed = PatchEmbed(embed_dim, patch_size=patch_size, norm=patch_norm, image=num_frames is None)
        self.pos_drop = nn.Dropout(drop_rate)
        drop_paths = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        self.layers = nn.ModuleList()
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            dim = embed_dim * 2**stage
            is_last = stage == len(depths) - 1
            blocks = [
                IwinBlock(
                    dim,
                    num_heads=heads,
                    window_size=window_size,
                    dwconv=not is_last if dwconv_stages is None else dwconv_stages[stage],
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    qk_scale=qk_scale,
                    drop=drop_rate,
                    attn_drop=attn_drop_rate,
                    drop_path=drop_paths[sum(depths[:stage]) + index],
                )
                for index in range(depth)
            ]
            self.layers.append(IwinStage(blocks, None if is_last else Downsample(dim)))
        self.norm = FullPrecisionLayerNorm(self.num_features)
        self.init_weights()
        for module in self.modules():
            if isinstance(module, Downsample):  # after they were drawn, so that a seed gives the same weights
                module.conv.to(memory_format=torch.channels_last)
        self.set_grad_checkpointing(use_checkpoint)
        self._freeze()

    def init_weights(self) -> None:
        """Draw fresh weights as the authors do.

        | parameter | value |
        | --- | --- |
        | Linear weight | normal of std 0.02, cut at +-2 |
        | LayerNorm | weight 1 |
        | video patch projection | Kaiming normal, fan out |
        | image patch projection, depthwise and downsampling convolutions | PyTorch's default, biases too |
        | time_embed | 0 |
        | absolute_pos_embed | normal of std 0.02, cut at +-2 |
        | all other biases | 0 |
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d | nn.LayerNorm):
                module.reset_parameters()
        if self.time_embed is not None:
            nn.init.zeros_(self.time_embed)
        if self.absolute_pos_embed is not None:
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block's activations in the backward pass: the same gradients in less memory."""
        for module in self.modules():
            if isinstance(module, IwinStage):
                module.use_checkpoint = enable

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        stages = list(self.layers[: self.frozen_stages])
        return [self.patch_embed, self.pos_drop, *stages] if stages else [self.patch_embed]

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "IwinTransformer":
        """Switch between training and evaluation; frozen stages stay in evaluation."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Features of normalised clips.

        Args:
            x: clips (B, 3, T, H, W) of any T, H, W.

        Returns:
            (B, C, T', H', W') with T' = ceil(T / 2), H' and W' about 1/32 of H and W. A clip of one time step is taken
            for a still and repeated over the embedded length, as in the authors' model.
        """
        if x.ndim != 5 or min(x.shape[1:]) < 1 or not x.is_floating_point():
            given = f"{x.dtype} {tuple(x.shape)}"
            raise ModelError(f"the backbone takes normalised clips (B, 3, T, H, W) of floating point, not {given}")
        x = self.embed(x)
        for stage in self.layers:
            x = stage(x)
        return self.norm(x).permute(0, 4, 1, 2, 3)

    def embed(self, x: Tensor) -> Tensor:
        """Patches of clips x (B, 3, T, H, W) with their embeddings added: (B, T', H', W', C)."""
        patches = self.patch_embed
        if self.time_embed is None:
            x = patches(x)
        elif type(patches) is not PatchEmbed or is_watched(patches):
            x = patches(x)
            x = x + self._time_embedding(x.shape[1])
        else:  # in one pass, since nobody looks at what comes without it
            x = patches(x, self._time_embedding(-(-x.shape[2] // patches.patch_size[0])))
        if self.absolute_pos_embed is not None:
            x = x + self._position_embedding(x.shape[2], x.shape[3])
        return self.pos_drop(x)

    def _time_embedding(self, steps: int) -> Tensor:
        """`time_embed` as (1, T', 1, 1, C), interpolated linearly where it was trained for another number of steps."""
        assert self.time_embed is not None
        embedding = self.time_embed[..., 0, 0]
        if steps not in (1, embedding.shape[2]):
            embedding = F.interpolate(embedding, size=steps, mode="linear", align_corners=False)
        return embedding.transpose(1, 2)[:, :, None, None]

    def _position_embedding(self, height: int, width: int) -> Tensor:
        """`absolute_pos_embed` as (1, 1, H', W', C); it belongs to a square map and is interpolated to any other."""
        assert self.absolute_pos_embed is not None
        side = round(self.absolute_pos_embed.shape[1] ** 0.5)
        embedding = self.absolute_pos_embed.unflatten(1, (side, side))
        if (height, width) != (side, side):
            embedding = F.interpolate(
                embedding.permute(0, 3, 1, 2), size=(height, width), mode="bicubic", align_corners=False
            ).permute(0, 2, 3, 1)
        return embedding[:, None]
