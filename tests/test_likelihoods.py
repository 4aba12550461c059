"""-log p(x|z) of every likelihood, against torch.distributions and sums that must be one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Laplace, Normal

from facefactory import registry
from facefactory.data.sets.pixels import to_model
from facefactory.facts import Facts

PACKAGE = "objectives.likelihoods"
FACTS = Facts(4, 5, 3)
every_likelihood = pytest.mark.parametrize("name", registry.names(PACKAGE))
LEVELS = torch.arange(256, dtype=torch.float64).view(256, 1, 1, 1) / 127.5 - 1


def likelihood(name: str, **options: Any) -> Any:
    return registry.build(PACKAGE, {"name": name, **options}, FACTS)


def pair(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """What a decoder could say, and images of whole levels."""
    draws = torch.Generator().manual_seed(0)
    decoded = torch.rand(6, 3, 4, 5, generator=draws, dtype=torch.float64) * 2 - 1
    levels = torch.randint(
        0,
        256,
        (6, 4, 5, 3),
        generator=draws,
        dtype=torch.uint8,
    )
    return decoded.to(dtype), to_model(levels).to(dtype)


def test_densities_are_those_of_torch_distributions() -> None:
    decoded, images = pair()
    wanted = {
        "gaussian": (Normal(decoded, 0.3), {"sigma": 0.3}),
        "gaussian_learned": (Normal(decoded, 0.3), {"sigma": 0.3}),
        "laplace": (Laplace(decoded, 0.2), {"scale": 0.2}),
    }
    for name, (density, options) in wanted.items():
        found = likelihood(name, **options).double().nats(decoded, images)
        torch.testing.assert_close(
            found,
            -density.log_prob(images),
            rtol=1e-6,
            atol=1e-6,
        )


def test_bernoulli_is_the_cross_entropy_of_coin_tosses() -> None:
    decoded, images = pair()
    coins = images.sign()
    found = likelihood("bernoulli").nats(decoded, coins)
    wanted = -Bernoulli((decoded + 1) / 2).log_prob((coins + 1) / 2)
    torch.testing.assert_close(
        found,
        wanted,
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("scale", [1e-3, 0.01, 0.05, 1.0])
@pytest.mark.parametrize("middle", [-1.0, -0.999, -0.3, 0.0, 0.7, 1.0])
def test_the_discretised_logistic_sums_to_one_over_256_levels(middle: float, scale: float) -> None:
    decoded = torch.full_like(LEVELS, middle)
    nats = likelihood("logistic", scale=scale).double().nats(decoded, LEVELS)
    assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_the_discretised_logistic_is_the_density_times_a_level_where_it_is_wide() -> None:
    decoded, images = pair()
    scale = 0.5
    t = (images - decoded) / scale
    density = -t - 2 * torch.log1p((-t).exp()) - math.log(scale)
    inside = images.abs() < 1 - 1 / 255
    found = likelihood("logistic", scale=scale).double().nats(decoded, images)
    torch.testing.assert_close(
        found[inside], -(density + math.log(2 / 255))[inside], rtol=1e-4, atol=1e-4
    )


def test_the_discretised_logistic_is_finite_far_from_its_middle_and_pulls_it_there() -> None:
    decoded = torch.full((1, 1, 1, 2), -0.99).requires_grad_(True)
    images = to_model(torch.tensor([254, 255], dtype=torch.uint8).view(1, 1, 2, 1))
    nats = likelihood("logistic", scale=0.002).nats(decoded, images)
    nats.sum().backward()
    assert torch.isfinite(nats).all()
    assert torch.isfinite(decoded.grad).all()
    torch.testing.assert_close(
        nats[0, 0, 0], (images - decoded).detach()[0, 0, 0] / 0.002, rtol=0.01, atol=1
    )
    torch.testing.assert_close(
        decoded.grad, torch.full_like(decoded, -1 / 0.002), rtol=1e-3, atol=0
    )


def test_a_learned_deviation_rests_where_it_is_the_errors() -> None:
    decoded, images = pair()
    error = (decoded - images).square().mean().sqrt().item()
    rests = likelihood("gaussian_learned", sigma=error).double()
    rests.nats(decoded, images).mean().backward()
    assert rests.raw.grad.item() == pytest.approx(0, abs=1e-6)

    # one for each pixel rests elsewhere
    each = likelihood("gaussian_learned", sigma=error, per="pixel").double()
    each.nats(decoded, images).mean().backward()
    assert each.raw.grad.shape == (3, 4, 5)
    assert each.raw.grad.abs().max() > 1e-4
    assert each.raw.grad.sum().item() == pytest.approx(0, abs=1e-6)


@every_likelihood
def test_what_is_decoded_right_costs_least(name: str) -> None:
    _, images = pair()
    made = likelihood(name).double()
    right = made.nats(images.clamp(-0.99, 0.99), images).sum()
    assert right < made.nats(images.flip(3).clamp(-0.99, 0.99), images).sum()


@every_likelihood
def test_nats_are_those_of_each_pixel_in_the_images_precision(name: str) -> None:
    decoded, images = pair(torch.float32)
    found = likelihood(name).nats(decoded, images)
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    exact = likelihood(name).double().nats(decoded.double(), images.double())
    torch.testing.assert_close(
        found,
        exact.float(),
        rtol=2e-4,
        atol=2e-4,
    )


@pytest.mark.parametrize(
    ("name", "scalars", "words"),
    [
        ("gaussian_learned", {"sigma": 0.1}, ""),
        ("gaussian_learned", {"sigma": 0.003}, "sigma ran down"),
        ("gaussian_learned", {"sigma": 3.0}, "sigma ran up"),
        ("logistic", {"scale": 0.05}, ""),
        ("logistic", {"scale": 7.0}, "scale ran up to 7"),
        ("gaussian", {}, ""),
    ],
)
def test_a_deviation_that_runs_away_is_told(
    name: str, scalars: dict[str, float], words: str
) -> None:
    told = likelihood(name).health(scalars)
    assert words in " ".join(told)
    assert bool(told) == bool(words)
