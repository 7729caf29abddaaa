"""What surrounds a layer when it is called, by which it chooses its way: export, transforms, autocast, hooks."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as everywhere

Function = TypeVar("Function", bound=Callable[..., Any])

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def constant_in_graphs(function: Function) -> Function:
    """Have `torch.compile` call a function while it compiles, and take its result for a constant.

    It does what `torch.compiler.assume_constant_result` does, which would import all of the compiler on the way: a
    second and 150 MB in every process that has a model, whether it compiles one or not.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_in_graphs
def needs_pytorch() -> bool:
    """Whether layers must consist of PyTorch's own operators.

    So it is under `torch.export` and `torch.jit.trace`, whose programs must run without our kernels, in `torch.func`,
    and where derivatives are computed forward: both would take a kernel's derivative for zero.

    Asked when a model is compiled, not traced into it: `torch.compile` in PyTorch 2.11 takes
    `torch.compiler.is_exporting` for always true.
    """
    exporting = torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return bool(exporting or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0)


def compute_dtype(x: Tensor) -> torch.dtype:
    """In which precision a layer computes on x: its own, or autocast's, which leaves float64 alone."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)


def is_gelu(layer: nn.Module) -> bool:
    """Whether a layer is GELU in its erf form."""
    return type(layer) is nn.GELU and layer.approximate == "none"


def is_watched(*layers: nn.Module) -> bool:
    """Whether somebody looks at the calls of layers, who would miss those that a kernel does without.

    That is by hooks, forward or backward, or by a `forward` of a layer's own in place of its class's.
    """
    if any(getattr(everywhere, f"_global{name}") for name in _HOOKS):
        return True
    own = [layer.__dict__ for layer in layers]
    return any("forward" in attributes or any(attributes[name] for name in _HOOKS) for attributes in own)
