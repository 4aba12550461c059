"""Separated attribute predictability (Kumar et al., DIP-VAE, ICLR 2018, §3): how much better than the second best the best
dimension predicts a factor, the mean over factors.

Numbers are predicted by a line, the share of their variance counts; classes by the threshold, or thresholds, at which a
dimension's bins tell most of them (Locatello et al. have a linear support vector machine there), their accuracy balanced.
"""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.codes._factors import (
    Classes,
    binned,
    classes,
    is_number,
    needs,
    tables,
)

SCORES = {"sap": "higher"}


def score(codes: Array, factors: Array) -> dict[str, float]:
    """0…1; factors that do not vary count for nothing.

    Raises:
        ValueError: fewer than 20 faces, 2 dimensions or 1 factor that varies.
    """
    varying = factors[:, np.nanstd(factors, 0) > 0]
    needs("sap", codes, varying, dimensions=2)
    bins = binned(codes)
    gaps = []
    for factor in varying.T:
        known = np.isfinite(factor)
        if is_number(factor[known]):
            told = _of_variance(codes[known], factor[known])
        else:
            told = _of_classes(bins[known], classes(factor[known]))
        second, first = np.sort(told)[-2:]
        gaps.append(first - second)
    return {"sap": float(np.mean(gaps))}


def _of_variance(codes: Array, numbers: Array) -> Array:
    """Squared correlation with each dimension [D]."""
    centred = codes - codes.mean(0)
    wanted = numbers - numbers.mean()
    spread = np.square(centred).sum(0) * np.square(wanted).sum()
    return np.square(wanted @ centred) / np.where(spread > 0, spread, 1)


def _of_classes(bins: Classes, wanted: Classes) -> Array:
    """Balanced accuracy of the most likely class of each dimension's bins, as far as it is above guessing [D]."""
    count = int(wanted.max()) + 1
    shares = tables(bins, wanted) / np.bincount(wanted)
    accuracy = shares.max(2).sum(1) / count
    return (accuracy - 1 / count) / (1 - 1 / count)
