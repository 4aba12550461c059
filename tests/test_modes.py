"""Planted modes: three channels, each one of five patterns, are 125 modes; which of them does a GAN draw?

After Srivastava et al., "VEEGAN", NeurIPS 2017, §4.1 (stacked MNIST), small enough for seconds.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from facefactory import checkpoint, registry
from facefactory.draws import Draws
from facefactory.facts import Facts
from facefactory.objectives import Batch

PATTERNS = 5
CHANNELS = 3
MODES = PATTERNS**CHANNELS
SIDE = 8
BATCH = 64
R1 = {"r1": {"gamma": 1.0, "interval": 1}}
OLD = {"critic": "non_saturating", "terms": R1}
MODERN = {"critic": "relativistic", "terms": {**R1, "r2": {"gamma": 1.0, "interval": 1}}}


def patterns() -> Tensor:
    """[5, 8, 8] of -0.8 and 0.8."""
    signs = torch.randn(PATTERNS, 1, 4, 4, generator=torch.Generator().manual_seed(0)).sign()
    return F.interpolate(signs, size=(SIDE, SIDE), mode="nearest")[:, 0] * 0.8


def draw(draws: torch.Generator) -> Tensor:
    """A batch of the set, [64, 3, 8, 8]."""
    which = torch.randint(
        0,
        PATTERNS,
        (BATCH, CHANNELS),
        generator=draws,
    )
    noise = torch.randn(
        BATCH,
        CHANNELS,
        SIDE,
        SIDE,
        generator=draws,
    )
    return patterns()[which] + 0.05 * noise


def modes(images: Tensor) -> int:
    """How many modes have an image whose channels are all nearer than 0.1 to their patterns, in mean squares."""
    error = (images[:, :, None] - patterns()).square().mean((3, 4))
    nearest, which = error.min(2)
    number = (which * PATTERNS ** torch.arange(CHANNELS)).sum(1)
    return len(number[(nearest < 0.1).all(1)].unique())


def trained(objective: dict[str, Any], seed: int, iterations: int) -> int:
    """The modes among 5,000 images of a small GAN."""
    facts = Facts(SIDE, SIDE, CHANNELS, {})
    model: Any = checkpoint.build({"name": "gan/fc", "width": 128, "z_dim": 32}, facts, seed)
    loss = registry.build(
        "objectives",
        {"name": "adversarial", **objective},
        facts,
        model,
    )
    players = {phase.name: getattr(model, phase.name) for phase in loss.phases}
    optimisers = {
        name: torch.optim.Adam(player.parameters(), lr=1e-3, betas=(0.0, 0.99), foreach=True)
        for name, player in players.items()
    }
    data = torch.Generator().manual_seed(seed + 1)
    none = torch.empty(BATCH, 0)
    for iteration in range(iterations):
        draws = Draws(
            seed,
            iteration * BATCH,
            BATCH,
            0,
            BATCH,
            torch.device("cpu"),
        )
        batch = Batch(
            draw(data), {}, none, none, iteration, 0.0, draws, lambda shown, purpose: shown
        )
        for name, player in players.items():
            model.requires_grad_(False)
            player.requires_grad_(True)
            optimisers[name].zero_grad()
            loss.loss(name, model, batch)[0].backward()
            optimisers[name].step()

    z = torch.randn(
        5000,
        model.z_dim,
        generator=torch.Generator().manual_seed(7),
    )
    with torch.no_grad():
        return modes(model.sample(z, torch.empty(5000, 0)))


def test_modes_are_counted() -> None:
    every = torch.cartesian_prod(*[torch.arange(PATTERNS)] * CHANNELS)
    images = patterns()[every]
    assert modes(images) == MODES
    assert modes(images[:40].repeat(2, 1, 1, 1)) == 40
    assert modes(images + 0.5) == 0


@pytest.mark.parametrize(
    "seed", [1, pytest.param(0, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_relativistic_pairs_with_r1_and_r2_find_modes_that_cross_entropy_with_r1_loses(
    seed: int,
) -> None:
    """After as many iterations; given three times as many, the old objective has found all of them, too."""
    assert trained(MODERN, seed, 1200) >= MODES - 1
    assert trained(OLD, seed, 1200) <= MODES - 20
