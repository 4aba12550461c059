"""Unbiased squared maximum mean discrepancy with the polynomial kernel (x·y / D + 1)³.

KID: Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, §4; the estimator is Gretton et al. 2012, eq. 3, over whole
sets instead of random subsets, so that it needs no seed. Unbiased: it may be negative, and does not depend on set sizes.
"""

from facefactory.metrics import Array

STATISTICS = "sample"
SCORES = {"kd": "lower"}
ROWS = 2048  # rows of the kernel matrix held at once


def _sum(first: Array, second: Array) -> float:
    chunks = (first[i : i + ROWS] for i in range(0, len(first), ROWS))
    return float(sum(((chunk @ second.T / first.shape[1] + 1) ** 3).sum() for chunk in chunks))


def _within(features: Array) -> float:
    diagonal = (((features**2).sum(1) / features.shape[1] + 1) ** 3).sum()
    return (_sum(features, features) - float(diagonal)) / (len(features) * (len(features) - 1))


def score(real: Array, fake: Array) -> dict[str, float]:
    """Expected 0 for two samples of one distribution."""
    between = 2 * _sum(real, fake) / (len(real) * len(fake))
    return {"kd": _within(real) + _within(fake) - between}
