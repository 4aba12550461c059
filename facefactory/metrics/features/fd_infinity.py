"""The Fréchet distance that infinitely many fakes would have (Chong & Forsyth, CVPR 2020, FID∞).

Distances of 15 random subsets of the fakes to all reals, evenly spaced in size from min(5000, n /
10) to n, lie on a line in 1 / size; its value at 0 is the score. The line holds only where a
subset has clearly more images than features, so the smallest has 2 D at least. The reals' own
bias stays, so it is not symmetric; it may come out below 0. Its variance is larger than the plain
distance's, and it is as blind.

Of the sanity checks of Räisä et al. (ICML 2025) it fails "heavy tail".
"""

import numpy as np

from facefactory.metrics import Array, moments
from facefactory.metrics.features._neighbours import finite, needs
from facefactory.metrics.features.frechet_distance import factor, overlap

STATISTICS = "sample"
SCORES = {"fd_infinity": "lower"}
DRAWS = True
SIZES = 15
SEED = 0


def intercept(sizes: Array, values: Array) -> float:
    """Value at infinite size of the line in 1 / size through values, by least squares."""
    return float(np.polyfit(1 / sizes, values, 1)[1])


def score(real: Array, fake: Array) -> dict[str, float]:
    """0 for one distribution and infinitely many reals; in squared units of the features.

    Raises:
        ValueError: fewer than 4 D fakes (and 60), or fewer than 2 D reals.
    """
    columns = fake.shape[1]
    needs(
        "fd_infinity", real=(len(real), 2 * columns), fake=(len(fake), max(4 * columns, 4 * SIZES))
    )
    finite(real, fake)
    reference = moments(real)
    of_reals = factor(reference.covariance)
    smallest = max(min(5000, len(fake) // 10), 2 * columns, SIZES)
    sizes = np.linspace(smallest, len(fake), SIZES).astype(int)

    rng = np.random.default_rng(SEED)
    values = []
    for size in sizes:
        some = moments(fake[rng.permutation(len(fake))[:size]])
        shift = reference.mean - some.mean
        spread = np.trace(reference.covariance) + np.trace(some.covariance)
        values.append(shift @ shift + spread - 2 * overlap(of_reals, factor(some.covariance)))
    return {"fd_infinity": intercept(sizes.astype(float), np.array(values))}
