"""Modularity (Ridgeway & Mozer, NeurIPS 2018, §3): whether a dimension tells of one factor only, by mutual information.

For each dimension that tells anything, 1 less the squares of what it tells of the other factors, as shares of what it tells of its own; the mean over
them. It does not mind several dimensions of one factor, and weighs a dimension that hardly tells anything as much as any other.
"""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.codes._factors import binned, classes, informations, needs

SCORES = {"modularity": "higher"}
LEAST_NATS = 0.01  # a dimension that tells less of every factor has no factor


def score(codes: Array, factors: Array) -> dict[str, float]:
    """0…1; 0 where no dimension tells anything.

    Raises:
        ValueError: fewer than 20 faces, 2 dimensions or 2 factors that vary.
    """
    varying = factors[:, np.nanstd(factors, 0) > 0]
    needs("modularity", codes, varying, dimensions=2, count=2)
    bins = binned(codes)
    told = np.empty((codes.shape[1], varying.shape[1]))
    for number, factor in enumerate(varying.T):
        known = np.isfinite(factor)
        told[:, number] = informations(bins[known], classes(factor[known]))
    told = told[told.max(1) >= LEAST_NATS]
    if not len(told):
        return {"modularity": 0.0}
    own = told.max(1)
    beside = np.square(told).sum(1) - np.square(own)
    return {"modularity": float(np.mean(1 - beside / (np.square(own) * (told.shape[1] - 1))))}
