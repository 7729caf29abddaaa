"""Layers that take kernels of ours where those are faster: Triton's on GPUs, in C++ on CPUs."""

import torch
from torch import Tensor, nn

from iwin.models.kernels import ops
from iwin.models.native import tokens
from iwin.models.native.linear import Linear
from iwin.models.surroundings import compute_dtype, is_gelu, is_watched


class FullPrecisionLayerNorm(nn.LayerNorm):
    """LayerNorm in no less than the precision of its weights, under autocast too, as GPUs have it.

    On CPUs autocast lets it take a map in bf16, and then PyTorch adds up the gradients of its weights in bf16 as well,
    where most of what thousands of tokens say is lost.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C); same shape out."""
        return super().forward(x.to(torch.promote_types(x.dtype, self.weight.dtype)))


class LayerNorm(FullPrecisionLayerNorm):
    """LayerNorm of what products read: under autocast it comes in its precision, on CPUs and where the kernel runs."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., C); same shape out."""
        if ops.norms(x, self):
            return ops.layer_norm(x, self.weight, self.bias, self.eps)
        if tokens.norms(x, self):
            return tokens.layer_norm(x, self)
        normed = super().forward(x)
        # Else, on CPUs, each of those that read it would turn it to that precision, and keep that for its gradients.
        return normed.to(compute_dtype(x)) if x.device.type == "cpu" else normed


def widen(x: Tensor, linear: nn.Module, activation: nn.Module) -> Tensor:
    """The hidden layer of an MLP, by kernels where nobody looks at the layers that they stand for."""
    if not is_gelu(activation) or type(linear) is not Linear or is_watched(linear, activation):
        hidden: Tensor = activation(linear(x))
        return hidden
    if ops.joins_gelu(x, linear):
        return ops.linear_gelu(x, linear.weight, linear.bias)
    hidden = linear(x)
    if torch.is_grad_enabled() or not tokens.takes(hidden):
        return activation(hidden)
    return tokens.gelu(hidden, hidden)
