"""What both TADs share: which binary attributes are captured, and by how much more the best dimension knows them."""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.codes._factors import classes, entropy, informations

CAPTURED = 0.75  # AUROC of the best dimension
FOLLOWS = 0.2  # share of an attribute's entropy that another one takes


def binary(factors: Array) -> Array:
    """The columns that have two values, as 0 and 1 [N, L]; NaN = missing."""
    columns = []
    for factor in factors.T:
        known = np.isfinite(factor)
        values = np.unique(factor[known])
        if len(values) == 2:
            columns.append(np.where(known, factor == values[1], np.nan))
    return np.stack(columns, 1) if columns else np.empty((len(factors), 0))


def followed(labels: Array) -> Array:
    """The largest share of each attribute's entropy that another one takes [L]."""
    count = labels.shape[1]
    shares = np.zeros((count, count))
    for one in range(count):
        for other in range(count):
            known = np.isfinite(labels[:, one]) & np.isfinite(labels[:, other])
            first = classes(labels[known, one])
            whole = entropy(np.bincount(first).astype(np.float64))
            if one != other and whole > 0:
                told = informations(classes(labels[known, other])[:, None], first)
                shares[one, other] = float(told[0]) / whole
    return shares.max(1, initial=0)


def gaps(auroc: Array, follows: Array) -> tuple[float, int]:
    """(Σ over captured attributes of the best dimension's AUROC less the second best's, how many are captured).

    `auroc`: of each dimension for each attribute [D, L], the better of its two signs. `follows`: what `followed` says of them [L].
    """
    second, first = np.sort(auroc, 0)[-2:]
    captured = (first >= CAPTURED) & (follows <= FOLLOWS)
    return float((first - second)[captured].sum()), int(captured.sum())
