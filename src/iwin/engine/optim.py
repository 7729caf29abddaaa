"""Parameter groups and the optimiser.

The rules for a parameter's learning rate and weight decay are those of mmcv's DefaultOptimizerConstructor, which the
original's recipes were written for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True, kw_only=True)
class ParamRule:
    """Multipliers for the parameters whose name contains `key`.

    Attributes:
        key: Part of a name like "backbone.layers.0.blocks.1.norm1.weight".
        lr_mult: Factor of the learning rate.
        decay_mult: Factor of the weight decay.
    """

    key: str
    lr_mult: float = 1.0
    decay_mult: float = 1.0


def multipliers(
    model: nn.Module,
    *,
    rules: Sequence[ParamRule] = (),
    norm_decay_mult: float | None = None,
    bias_lr_mult: float | None = None,
    bias_decay_mult: float | None = None,
    dwconv_decay_mult: float | None = None,
) -> dict[str, tuple[float, float]]:
    """Factors of the learning rate and the weight decay for every parameter.

    The rules are tried longest key first, ties in alphabetical order, and the first whose key is in the parameter's
    name decides alone: "backbone" wins over "norm" for "backbone.norm.weight", and none of the other multipliers then
    applies to it.

    Args:
        model: Any module.
        rules: Multipliers by parts of names.
        norm_decay_mult: Weight decay of normalisation layers, biases included; None leaves it as it is.
        bias_lr_mult: Learning rate of biases outside normalisation layers, likewise.
        bias_decay_mult: Weight decay of biases outside normalisation layers and depthwise convolutions, likewise.
        dwconv_decay_mult: Weight decay of depthwise 2D convolutions, biases included, likewise.

    Returns:
        (learning-rate factor, weight-decay factor) by name, in the order of `model.named_parameters()`.
    """
    ordered = sorted(rules, key=lambda rule: (-len(rule.key), rule.key))
    result = {}
    for name, _ in model.named_parameters():
        rule = next((rule for rule in ordered if rule.key in name), None)
        if rule is not None:
            result[name] = rule.lr_mult, rule.decay_mult
            continue
        parent, _, leaf = name.rpartition(".")
        module = model.get_submodule(parent)
        lr_mult = decay_mult = None
        if leaf == "bias" and not isinstance(module, NORMS):
            lr_mult = bias_lr_mult
        if isinstance(module, NORMS):
            decay_mult = norm_decay_mult
        elif isinstance(module, nn.Conv2d) and module.in_channels == module.groups:
            decay_mult = dwconv_decay_mult
        elif leaf == "bias":
            decay_mult = bias_decay_mult
        result[name] = (1.0 if lr_mult is None else lr_mult, 1.0 if decay_mult is None else decay_mult)
    return result


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    rules: Sequence[ParamRule] = (),
    norm_decay_mult: float | None = None,
    bias_lr_mult: float | None = None,
    bias_decay_mult: float | None = None,
    dwconv_decay_mult: float | None = None,
) -> list[dict[str, Any]]:
    """Groups for a torch optimiser: one for each pair of learning rate and weight decay that occurs.

    The original made a group of every parameter; the update is the same, but fused optimisers run once a group.
    Parameters that need no gradient are left out.

    Args:
        model: Any module.
        lr: Learning rate at multiplier 1.
        weight_decay: Weight decay at multiplier 1.
        rules: As in `multipliers`, like all arguments below.
        norm_decay_mult: See `multipliers`.
        bias_lr_mult: See `multipliers`.
        bias_decay_mult: See `multipliers`.
        dwconv_decay_mult: See `multipliers`.

    Returns:
        Dicts with "params", "lr", "weight_decay" and "initial_lr" (the rate that a schedule starts from), in the order
        of their first parameters.
    """
    factors = multipliers(
        model,
        rules=rules,
        norm_decay_mult=norm_decay_mult,
        bias_lr_mult=bias_lr_mult,
        bias_decay_mult=bias_decay_mult,
        dwconv_decay_mult=dwconv_decay_mult,
    )
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members.setdefault(factors[name], []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * lr_mult,
            "initial_lr": lr * lr_mult,
            "weight_decay": weight_decay * decay_mult,
        }
        for (lr_mult, decay_mult), parameters in members.items()
    ]


def build_optimizer(
    groups: list[dict[str, Any]],
    *,
    name: Literal["adamw", "adam", "sgd"] = "adamw",
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.0,
    nesterov: bool = False,
    fused: bool | None = None,
) -> torch.optim.Optimizer:
    """An optimiser over `parameter_groups`.

    Args:
        groups: Parameter groups with their learning rates and weight decays.
        name: "adamw" decays the weights themselves; "adam" and "sgd" add the decay to the gradient.
        betas: Of adamw and adam.
        eps: Of adamw and adam.
        momentum: Of sgd.
        nesterov: Of sgd; needs momentum.
        fused: Whether one kernel updates a whole group; None does where all parameters are on CUDA devices or CPUs, so
            move the model there first.

    Returns:
        The optimiser.
    """
    if fused is None:
        fused = all(parameter.device.type in ("cuda", "cpu") for group in groups for parameter in group["params"])
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=momentum, nesterov=nesterov, fused=fused)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    return kind(groups, betas=betas, eps=eps, fused=fused)
