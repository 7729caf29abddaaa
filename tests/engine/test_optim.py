from typing import Any

import pytest
import torch
from torch import nn

from iwin.engine.optim import ParamRule, build_optimizer, multipliers, parameter_groups
from tests.goldens import load_json
from tests.sources import Golden, over_goldens

RECIPE = (
    ParamRule(key="absolute_pos_embed", decay_mult=0.0),
    ParamRule(key="relative_position_bias_table", decay_mult=0.0),
    ParamRule(key="norm", decay_mult=0.0),
    ParamRule(key="backbone", lr_mult=0.1),
)
"""The rules of all published recipes."""
TINY = "iwin_tiny_patch244_window77_kinetics400_1k"


def module_with(names: list[str]) -> nn.Module:
    """A module whose parameters have these dotted names, in this order."""
    root = nn.Module()
    for name in names:
        parent = root
        *path, leaf = name.split(".")
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.register_parameter(leaf, nn.Parameter(torch.zeros(1)))
    return root


class Kinds(nn.Module):
    """A parameter of every kind that the rules tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.batch_norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)


@over_goldens
def test_the_recipe_gives_every_parameter_the_original_rate_and_decay(golden: Golden) -> None:
    case = load_json(golden("data/param_groups.json"))[TINY]
    expected = {name: tuple(values) for name, values in case["lrmult_wd"].items()}
    model = module_with(list(expected))
    lr, decay = case["base_lr"], case["base_weight_decay"]
    factors = multipliers(model, rules=RECIPE)
    assert {name: (lr_mult, decay * decay_mult) for name, (lr_mult, decay_mult) in factors.items()} == expected

    groups = parameter_groups(model, lr=lr, weight_decay=decay, rules=RECIPE)
    names = {parameter: name for name, parameter in model.named_parameters()}
    in_groups = {names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert in_groups == {name: (lr * lr_mult, decay) for name, (lr_mult, decay) in expected.items()}
    assert sorted(len(group["params"]) for group in groups) == sorted(case["summary"].values())


@over_goldens
def test_the_longest_key_wins(golden: Golden) -> None:
    expected = load_json(golden("data/param_groups.json"))["toy"]
    model = module_with(list(expected))
    actual = multipliers(model, rules=RECIPE)
    assert {name: [3e-4 * lr, 0.05 * decay] for name, (lr, decay) in actual.items()} == expected


def test_keys_of_equal_length_are_tried_in_alphabetical_order() -> None:
    rules = (ParamRule(key="lin", lr_mult=3.0), ParamRule(key="ear", lr_mult=2.0))
    for given in (rules, rules[::-1]):
        assert multipliers(Kinds(), rules=given)["linear.weight"] == (2.0, 1.0)


def test_multipliers_by_kind_of_layer() -> None:
    actual = multipliers(Kinds(), norm_decay_mult=0.1, bias_lr_mult=2.0, bias_decay_mult=0.2, dwconv_decay_mult=0.3)
    assert actual == {
        "scale": (1.0, 1.0),
        "linear.weight": (1.0, 1.0),
        "linear.bias": (2.0, 0.2),
        "norm.weight": (1.0, 0.1),
        "norm.bias": (1.0, 0.1),
        "batch_norm.weight": (1.0, 0.1),
        "batch_norm.bias": (1.0, 0.1),
        "depthwise.weight": (1.0, 0.3),
        "depthwise.bias": (2.0, 0.3),
    }


def test_a_custom_rule_decides_alone() -> None:
    actual = multipliers(Kinds(), rules=(ParamRule(key="norm", lr_mult=0.5),), norm_decay_mult=0.0)
    assert actual["norm.weight"] == (0.5, 1.0)
    assert actual["linear.bias"] == (1.0, 1.0)


def test_groups_hold_every_trained_parameter_once() -> None:
    model = Kinds()
    model.linear.weight.requires_grad_(False)
    groups = parameter_groups(model, lr=0.1, weight_decay=0.5, norm_decay_mult=0.0, bias_lr_mult=2.0)
    assert [(g["lr"], g["initial_lr"], g["weight_decay"]) for g in groups] == [
        (0.1, 0.1, 0.5),
        (0.2, 0.2, 0.5),
        (0.1, 0.1, 0.0),
    ]
    held = [parameter for group in groups for parameter in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(held) == len(list(model.parameters())) - 1


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"name": "adamw", "betas": (0.8, 0.9), "eps": 1e-6}, torch.optim.AdamW),
        ({"name": "adam"}, torch.optim.Adam),
        ({"name": "sgd", "momentum": 0.9, "nesterov": True}, torch.optim.SGD),
    ],
)
def test_merged_groups_train_as_one_group_a_parameter(settings: dict[str, Any], kind: type) -> None:
    torch.manual_seed(0)
    model, twin = Kinds(), Kinds()
    twin.load_state_dict(model.state_dict())
    rules = (ParamRule(key="linear", lr_mult=0.1), ParamRule(key="norm", decay_mult=0.0))
    merged = build_optimizer(parameter_groups(model, lr=0.1, weight_decay=0.05, rules=rules), **settings)
    assert type(merged) is kind
    factors = multipliers(twin, rules=rules)
    single = build_optimizer(
        [
            {"params": [p], "lr": 0.1 * factors[name][0], "weight_decay": 0.05 * factors[name][1]}
            for name, p in twin.named_parameters()
        ],
        **settings,
    )
    assert len(merged.param_groups) < len(single.param_groups)
    for _ in range(3):
        for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
            parameter.grad = torch.randn_like(parameter)
            other.grad = parameter.grad.clone()
        merged.step()
        single.step()
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=0, atol=0)


def test_optimizer_settings_arrive() -> None:
    model = Kinds()
    groups = parameter_groups(model, lr=0.1, weight_decay=0.05)
    [group] = build_optimizer(groups, betas=(0.8, 0.9), eps=1e-6).param_groups
    assert (group["betas"], group["eps"], group["lr"], group["weight_decay"]) == ((0.8, 0.9), 1e-6, 0.1, 0.05)
    assert group["fused"] is True
    assert build_optimizer([{"params": Kinds().to("meta").parameters()}]).param_groups[0]["fused"] is False
    assert build_optimizer([{"params": model.parameters()}], fused=False).param_groups[0]["fused"] is False


@pytest.mark.gpu
def test_fused_where_the_parameters_are_on_a_gpu() -> None:
    groups = parameter_groups(Kinds().cuda(), lr=0.1, weight_decay=0.05)
    assert build_optimizer(groups).param_groups[0]["fused"] is True
