"""Mutual information gap (Chen et al., NeurIPS 2018, eq. 6), from means in bins (Locatello et al., ICML 2019, §C).

How much more the best dimension tells of a factor than the second best, as a share of the factor's entropy; the mean over
factors. 1: one dimension tells all of each factor and no other anything of it. 0: the best two tell as much. It does not
mind one dimension that tells several factors.
"""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.codes._factors import binned, classes, entropy, informations, needs

SCORES = {"mig": "higher"}


def score(codes: Array, factors: Array) -> dict[str, float]:
    """0…1; factors of one class count for nothing.

    Raises:
        ValueError: fewer than 20 faces, 2 dimensions or 1 factor that has two classes.
    """
    needs("mig", codes, factors, dimensions=2)
    bins = binned(codes)
    gaps = []
    for factor in factors.T:
        known = np.isfinite(factor)
        wanted = classes(factor[known])
        whole = entropy(np.bincount(wanted).astype(np.float64))
        if whole > 0:
            told = informations(bins[known], wanted)
            second, first = np.sort(told)[-2:]
            gaps.append((first - second) / whole)
    if not gaps:
        raise ValueError("mig needs at least 1 factor with two classes; there are 0.")
    return {"mig": float(np.mean(gaps))}
