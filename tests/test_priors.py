"""Priors that are fitted to codes after training."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from facefactory import registry
from facefactory.evaluation import priors
from facefactory.evaluation.priors import gaussian_mixture, second_stage
from facefactory.metrics import Array


def codes(count: int, columns: int = 4, seed: int = 0) -> Array:
    """Two clusters, of which the second has three quarters of the codes."""
    rng = np.random.default_rng(seed)
    second = rng.random(count) < 0.75
    spread = np.where(second[:, None], 0.5, 1.0) * rng.normal(size=(count, columns))
    return spread + np.where(second[:, None], 6.0, -2.0)


@pytest.mark.parametrize("name", registry.names("evaluation.priors"))
def test_a_prior_makes_codes_of_normal_numbers_and_of_the_same_ones_the_same(name: str) -> None:
    mu = codes(60)
    prior = priors.files()[name].fit(mu, 0)
    numbers = torch.randn(
        50,
        prior.width,
        generator=torch.Generator().manual_seed(0),
    )
    drawn = prior.codes(numbers)
    assert drawn.shape == (50, 4)
    assert drawn.dtype == numbers.dtype
    assert torch.isfinite(drawn).all()
    assert len(torch.unique(drawn, dim=0)) == 50
    again = priors.files()[name].fit(mu, 0)
    assert torch.equal(again.codes(numbers[7:9]), drawn[7:9])
    assert prior.words


def test_the_standard_normal_leaves_numbers_as_they_are() -> None:
    numbers = torch.randn(3, 4)
    assert torch.equal(priors.files()["normal"].fit(codes(9), 0).codes(numbers), numbers)


def test_two_clusters_are_found_with_their_shares_means_and_spreads() -> None:
    found = gaussian_mixture.mixture(codes(4000), 2, 0)
    order = np.argsort(found.weights)
    np.testing.assert_allclose(
        found.weights[order],
        [0.25, 0.75],
        atol=0.02,
    )
    np.testing.assert_allclose(
        found.means[order],
        [[-2.0] * 4, [6.0] * 4],
        atol=0.12,
    )
    spreads = np.sqrt([np.diag(factor @ factor.T) for factor in found.factors[order]])
    np.testing.assert_allclose(
        spreads,
        [[1.0] * 4, [0.5] * 4],
        atol=0.06,
    )


def test_codes_of_a_mixture_are_distributed_as_those_that_it_was_fitted_to() -> None:
    mu = codes(3000)
    prior = gaussian_mixture.fit(mu, 0)
    generator = torch.Generator().manual_seed(1)
    drawn = prior.codes(torch.randn(3000, prior.width, generator=generator)).numpy()
    for column in range(4):
        assert scipy.stats.ks_2samp(drawn[:, column], mu[:, column]).pvalue > 0.01


def test_densities_are_those_of_scipy() -> None:
    mu = codes(200)
    prior = gaussian_mixture.mixture(mu, 2, 0)
    wanted = np.zeros(200)
    for weight, mean, factor in zip(prior.weights, prior.means, prior.factors, strict=True):
        wanted += weight * scipy.stats.multivariate_normal(mean, factor @ factor.T).pdf(mu)
    assert prior.nats(mu) == pytest.approx(-np.log(wanted).mean(), rel=1e-9)


def test_as_many_normals_are_taken_as_explain_codes_that_were_left_out() -> None:
    rng = np.random.default_rng(0)
    one = gaussian_mixture.fit(rng.normal(size=(400, 12)), 0)
    several = gaussian_mixture.fit(codes(400), 0)
    assert len(one.weights) == 1
    assert len(several.weights) >= 2


def test_codes_without_spread_and_few_codes_are_no_hindrance() -> None:
    flat = gaussian_mixture.fit(np.zeros((30, 3)), 0)
    assert torch.allclose(flat.codes(torch.randn(5, 4)), torch.zeros(5, 3), atol=1e-6)
    few = gaussian_mixture.fit(codes(12, columns=32), 0)
    assert torch.isfinite(few.codes(torch.randn(5, 33))).all()
    with pytest.raises(ValueError, match="needs at least 10 training images; there are 9"):
        gaussian_mixture.fit(codes(9), 0)


def test_a_second_vae_draws_codes_where_codes_are_though_no_normal_is_there() -> None:
    # a ring: nothing lies at its middle, where a normal has its most
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 2000)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.03 * rng.normal(size=(2000, 2))
    before = torch.get_rng_state()
    prior = second_stage.fit(3 + 2 * ring, 0)
    assert torch.equal(torch.get_rng_state(), before)
    numbers = torch.randn(
        2000,
        prior.width,
        generator=torch.Generator().manual_seed(1),
    )
    drawn = (prior.codes(numbers).numpy() - 3) / 2
    normal = rng.normal(size=drawn.shape) * ring.std(0)
    near, far = (np.mean(np.abs(np.linalg.norm(one, axis=1) - 1) < 0.3) for one in (drawn, normal))
    assert near > 0.7
    assert far < 0.5
    quarters = np.histogram(np.arctan2(drawn[:, 1], drawn[:, 0]), 4, (-np.pi, np.pi))[0]
    assert quarters.min() > 250
