"""Parameters and multiply-adds of a model, in closed form.

Two counts of the same forward pass: the one that the published table uses, which leaves out both attention products
but counts norms, pooling and convolution biases (that is how mmcv's counter works), and all multiply-adds.
"""

from dataclasses import dataclass

from torch import nn

from iwin.models.block import IwinBlock
from iwin.models.iwin import Downsample, IwinStage, PatchEmbed
from iwin.models.recognizer import IwinImageClassifier, IwinRecognizer


@dataclass(frozen=True)
class Cost:
    """Cost of one clip.

    Attributes:
        params: parameters, classifier included.
        macs: all multiply-adds of convolutions, linear layers and attention products.
        published: the count of the published table.
    """

    params: int
    macs: int
    published: int


@dataclass
class _Count:
    macs: int = 0
    attention: int = 0
    extras: int = 0  # what the published count adds: convolution biases, 2 a normalised element, 1 a pooled one

    @property
    def published(self) -> int:
        return self.macs - self.attention + self.extras


def model_cost(model: IwinRecognizer | IwinImageClassifier, *, frames: int, height: int, width: int) -> Cost:
    """Cost of one clip of `frames` frames (1 for an image model) of height x width pixels."""
    backbone = model.backbone if isinstance(model, IwinRecognizer) else model
    head = model.cls_head.fc_cls if isinstance(model, IwinRecognizer) else model.head
    count = _Count()
    shape = _embed(count, backbone.patch_embed, (frames, height, width))
    if backbone.time_embed is not None and shape[0] == 1:
        shape = (backbone.time_embed.shape[2], *shape[1:])  # a still is repeated over the embedded length
    for stage in backbone.layers:
        assert isinstance(stage, IwinStage)
        for block in stage.blocks:
            assert isinstance(block, IwinBlock)
            _block(count, block, shape)
        if stage.downsample is not None:
            shape = _downsample(count, stage.downsample, shape)
    features = backbone.num_features * _volume(shape)
    count.extras += 2 * features + features  # the last norm, the pooling
    count.macs += head.in_features * head.out_features
    return Cost(sum(p.numel() for p in model.parameters()), count.macs, count.published)


def _volume(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]


def _conv(count: _Count, conv: nn.Conv2d | nn.Conv3d, positions: int) -> None:
    count.macs += conv.weight.numel() * positions
    count.extras += conv.out_channels * positions


def _embed(count: _Count, embed: PatchEmbed, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    t, h, w = (-(-side // patch) for side, patch in zip(shape, embed.patch_size, strict=True))
    _conv(count, embed.proj, t * h * w)
    if embed.norm is not None:
        count.extras += 2 * embed.proj.out_channels * t * h * w
    return t, h, w


def _block(count: _Count, block: IwinBlock, shape: tuple[int, int, int]) -> None:
    frames, height, width = shape
    dim = block.attn.qkv.in_features
    rows, columns = min(block.window_size[0], height), min(block.window_size[1], width)
    windows = -(-height // rows) * -(-width // columns)
    tokens = frames * rows * columns  # of one window, padding included
    products = 2 * windows * tokens**2 * dim  # queries by keys, weights by values
    count.macs += windows * tokens * (block.attn.qkv.weight.numel() + block.attn.proj.weight.numel()) + products
    count.attention += products
    count.macs += _volume(shape) * (block.mlp.fc1.weight.numel() + block.mlp.fc2.weight.numel())
    count.extras += 2 * 2 * dim * _volume(shape)  # two norms
    if block.dwconv is not None:
        _conv(count, block.dwconv.depthwise, windows * tokens)


def _downsample(count: _Count, down: Downsample, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    count.extras += 2 * down.conv.in_channels * _volume(shape)
    frames, height, width = shape
    shape = (frames, -(-height // 2), -(-width // 2))
    _conv(count, down.conv, _volume(shape))
    return shape
