"""Clipped density and clipped coverage (Salvy et al., ICLR 2026, arXiv 2507.01761), K = 5 nearest
neighbours.

Balls as in `density_coverage.py`. Density: radii no larger than their median, what a fake lies in
counts at most K balls, the mean is divided by that of the reals themselves and is at most 1.
Coverage: fakes in a real's ball count at most K, and the mean is read back through what it is
expected to be when only a part of the fakes is good. So both fall as a straight line from 1 to 0
with the share of junk among the fakes. Coverage is read back to 1 at most, so on one distribution
it is a little below 1. Not symmetric: balls are drawn around reals only.

Of the sanity checks of Räisä et al. (ICML 2025) it fails "modes invented" (clipped_coverage),
"cubes that share a fifth", "scale of a feature".
"""

import numpy as np
from scipy.special import betaln, gammaln

from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import inside, nearest, needs

STATISTICS = "sample"
SCORES = {"clipped_density": "higher", "clipped_coverage": "higher"}
NEIGHBOURS = 5


def expected_coverage(good: Array, reals: int) -> Array:
    """Mean of min(fakes in a ball, K) / K when `good` fakes are like the reals and the rest far.

    Whether the next nearest is a fake or one of the N - 1 other reals is a draw without regard to
    the distribution, so the number J of fakes nearer than the K-th real is beta-binomial,
    BB(good, K, N - K), and the mean is 1 - Σ_{j<K} (K - j) P(J = j) / K.
    """
    k = NEIGHBOURS
    missing = np.zeros(len(good))
    for j in range(k):
        enough = good >= j
        m = good[enough]
        choices = gammaln(m + 1) - gammaln(j + 1) - gammaln(m - j + 1)
        missing[enough] += (
            (k - j) / k * np.exp(choices + betaln(k + j, reals - k + m - j) - betaln(k, reals - k))
        )
    return 1 - missing


def score(real: Array, fake: Array) -> dict[str, float]:
    """Both 0…1: the share of good images that the scores amount to.

    Raises:
        ValueError: fewer than 6 reals or 5 fakes.
    """
    needs(
        "clipped_density_coverage", real=(len(real), NEIGHBOURS + 1), fake=(len(fake), NEIGHBOURS)
    )
    among_reals = nearest(real, real, NEIGHBOURS, itself=False)
    radii = among_reals.squared[:, -1]
    clipped_radii = np.minimum(radii, np.median(radii))
    (balls, _), (_, fakes) = inside(fake, real, clipped_radii, radii)

    # density, against that of the reals themselves
    near = among_reals.squared <= clipped_radii[:, None]
    real_balls = np.bincount(among_reals.rows[near], minlength=len(real))
    usual = np.minimum(real_balls / NEIGHBOURS, 1).mean()
    density = np.minimum(balls / NEIGHBOURS, 1).mean() / usual

    # coverage, read back
    covered = np.minimum(fakes / NEIGHBOURS, 1).mean()
    shares = np.linspace(0, 1, len(fake) + 1)
    coverage = np.interp(covered, expected_coverage(np.arange(len(fake) + 1.0), len(real)), shares)
    return {"clipped_density": float(min(density, 1.0)), "clipped_coverage": float(coverage)}
