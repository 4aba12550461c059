"""Optimisers by name, one a network, whose learning rates and betas are functions of the clock."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from facefactory.schedule import at
from facefactory.training import Optimiser


def build(
    wanted: Optimiser, parameters: Iterable[nn.Parameter], fused: bool = False
) -> torch.optim.Optimizer:
    """The optimiser of a network's parameters; `fused`: in one kernel, where the kind has one."""
    first, second = [at(beta, 0.0) for beta in wanted.betas]
    common: dict[str, Any] = {"lr": at(wanted.lr, 0.0), "weight_decay": wanted.weight_decay}
    if wanted.kind == "rmsprop":
        return torch.optim.RMSprop(
            parameters, alpha=second, momentum=first, foreach=True, **common
        )
    common["fused" if fused else "foreach"] = True
    if wanted.kind == "sgd":
        return torch.optim.SGD(parameters, momentum=first, **common)
    kind = torch.optim.AdamW if wanted.kind == "adamw" else torch.optim.Adam
    return kind(parameters, betas=(first, second), **common)


def set_clock(
    optimiser: torch.optim.Optimizer, wanted: Optimiser, kimg: float, share: float = 1.0
) -> None:
    """Set what a clock [thousands of images] says: the learning rate, or a share of it, and the betas."""
    first, second = [at(beta, kimg) for beta in wanted.betas]
    for group in optimiser.param_groups:
        group["lr"] = at(wanted.lr, kimg) * share
        if "betas" in group:
            group["betas"] = (first, second)
        else:
            group["momentum"] = first
        if "alpha" in group:
            group["alpha"] = second
