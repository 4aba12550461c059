"""Cliff's δ of every code between the two classes of every label (Cliff 1993): P(1 above 0) - P(1
below 0), -1…1.

δ = 2 AUROC - 1, so one ranking of the codes serves all labels (Mann-Whitney U).
"""

import numpy as np
import scipy.stats

from facefactory.metrics import Array


def score(codes: Array, labels: Array) -> Array:
    """Codes [N, D], labels [N, L] in {0, 1} -> δ [D, L]; NaN where a label has one class only."""
    ranks = scipy.stats.rankdata(codes, axis=0)
    ones = labels.sum(0)
    zeros = len(labels) - ones
    with np.errstate(invalid="ignore", divide="ignore"):
        wins = ranks.T @ labels - ones * (ones + 1) / 2
        return 2 * wins / (ones * zeros) - 1
