"""AUROC of every code for every label: how often a face with it has the larger code than one without; equal codes count half.

One ranking of the codes serves all labels that the same faces have (Mann & Whitney 1947), so the matrix is a product.
"""

import numpy as np
import scipy.stats

from facefactory.metrics import Array


def score(codes: Array, labels: Array) -> Array:
    """Codes [N, D], labels [N, L] in {0, 1}, NaN = missing -> AUROC [D, L]; NaN where a label has one class only."""
    found = np.empty((codes.shape[1], labels.shape[1]))
    known = np.isfinite(labels)
    alike: dict[bytes, list[int]] = {}
    for number, faces in enumerate(known.T):
        alike.setdefault(faces.tobytes(), []).append(number)

    # labels that the same faces have go together
    for members in alike.values():
        faces = known[:, members[0]]
        cases = labels[np.ix_(faces, members)]
        ones = cases.sum(0)
        pairs = ones * (len(cases) - ones)
        for dimension, code in enumerate(codes[faces].T):
            wins = scipy.stats.rankdata(code) @ cases - ones * (ones + 1) / 2
            found[dimension, members] = wins / np.where(pairs > 0, pairs, np.nan)
    return found
