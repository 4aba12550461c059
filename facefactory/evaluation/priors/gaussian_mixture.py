"""A mixture of normals with full covariances, fitted to the means of the posteriors (Ghosh et al., "From Variational to
Deterministic Autoencoders", ICLR 2020, §4: ex-post density estimation).

Expectation and maximisation (Dempster, Laird & Rubin 1977) from k-means; of 1, 2, 4 and 8 normals as many as explain a
fifth of the codes best that was left out, and then fitted to all of them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from scipy.linalg import solve_triangular
from scipy.special import logsumexp
from torch import Tensor

from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import needs

COUNTS = (1, 2, 4, 8)
ROUNDS = 100
GAIN = 1e-4  # nats a code: less than that, and the rounds end
RIDGE = 1e-3  # of the codes' mean variance, added to each: no normal shrinks to a point
LEAST = 10  # codes


@dataclass(frozen=True)
class Mixture:
    """Normals with weights [K], means [K, D] and lower factors of covariances [K, D, D]; see `Prior`."""

    weights: Array
    means: Array
    factors: Array

    @property
    def width(self) -> int:
        """One number chooses the normal."""
        return self.means.shape[1] + 1

    @property
    def words(self) -> str:
        """How many there are."""
        return f"{len(self.weights)} of {', '.join(map(str, COUNTS))} normals"

    def codes(self, normal: Tensor) -> Tensor:
        """The first number chooses the normal, the others the place in it."""
        numbers = normal.double().cpu()
        share = torch.special.ndtr(numbers[:, 0]).numpy()
        chosen = np.searchsorted(np.cumsum(self.weights)[:-1], share)
        moved = np.einsum("nij,nj->ni", self.factors[chosen], numbers[:, 1:].numpy())
        made = torch.from_numpy(self.means[chosen] + moved).to(normal.dtype)
        return made.to(normal)

    def log_densities(self, codes: Array) -> Array:
        """Log of weight times density of each normal [N, K]."""
        columns = codes.shape[1]
        found = np.empty((len(codes), len(self.weights)))
        for number, factor in enumerate(self.factors):
            white = solve_triangular(factor, (codes - self.means[number]).T, lower=True)
            volume = np.log(np.diag(factor)).sum() + columns / 2 * np.log(2 * np.pi)
            found[:, number] = np.log(self.weights[number]) - volume - (white**2).sum(0) / 2
        return found

    def nats(self, codes: Array) -> float:
        """Mean negative log density of codes [N, D]."""
        return -float(logsumexp(self.log_densities(codes), axis=1).mean())


def maximise(codes: Array, shares: Array) -> Mixture:
    """The normals that explain codes [N, D] best, of which each has a share [N, K]; those of nothing are left out."""
    ridge = RIDGE * codes.var(0).mean() + np.finfo(float).tiny
    members = shares.sum(0)
    kept = members > 1
    members = members[kept]
    shares = shares[:, kept]
    means = shares.T @ codes / members[:, None]
    factors = []
    for number, mean in enumerate(means):
        moved = codes - mean
        covariance = (shares[:, number, None] * moved).T @ moved / members[number]
        factors.append(np.linalg.cholesky(covariance + ridge * np.eye(len(mean))))
    return Mixture(members / members.sum(), means, np.stack(factors))


def mixture(codes: Array, count: int, seed: int) -> Mixture:
    """At most `count` normals, fitted to codes [N, D]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cluster may come out empty: it is left out
        _, places = kmeans2(codes, count, minit="++", seed=seed)
    found = maximise(codes, np.eye(count)[places])
    before = np.inf
    for _ in range(ROUNDS):
        densities = found.log_densities(codes)
        whole = logsumexp(densities, axis=1, keepdims=True)
        now = -float(whole.mean())
        if before - now < GAIN:
            break
        before = now
        found = maximise(codes, np.exp(densities - whole))
    return found


def fit(mu: Array, seed: int) -> Mixture:
    """The mixture.

    Raises:
        ValueError: fewer than 10 codes.
    """
    needs("a mixture", training=(len(mu), LEAST))
    order = np.random.default_rng(seed).permutation(len(mu))
    left_out = mu[order[::5]]
    rest = np.delete(mu, order[::5], axis=0)
    possible = [count for count in COUNTS if count <= len(rest)]
    nats = {count: mixture(rest, count, seed).nats(left_out) for count in possible}
    return mixture(mu, min(nats, key=nats.__getitem__), seed)
