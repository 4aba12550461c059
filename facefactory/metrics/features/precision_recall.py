"""Improved precision and recall (Kynkäänniemi et al., NeurIPS 2019, eq. 1-2), k = 3 nearest neighbours."""

import numpy as np
from scipy.spatial.distance import cdist

from facefactory.metrics import Array

STATISTICS = "sample"
SCORES = {"precision": "higher", "recall": "higher"}
NEIGHBOURS = 3
ROWS = 4096


def _radii(features: Array) -> Array:
    """Distance of each vector to its k-th neighbour, itself not counted."""
    k = min(NEIGHBOURS, len(features) - 1)
    chunks = [features[i : i + ROWS] for i in range(0, len(features), ROWS)]
    return np.concatenate(
        [np.partition(cdist(chunk, features), k, axis=1)[:, k] for chunk in chunks]
    )


def _covered(queries: Array, support: Array, radii: Array) -> float:
    chunks = [queries[i : i + ROWS] for i in range(0, len(queries), ROWS)]
    return float(
        np.concatenate([(cdist(chunk, support) <= radii).any(1) for chunk in chunks]).mean()
    )


def score(real: Array, fake: Array) -> dict[str, float]:
    """precision: share of fakes inside the real manifold; recall: share of reals inside the fake manifold; 0…1."""
    precision = _covered(fake, real, _radii(real))
    return {"precision": precision, "recall": _covered(real, fake, _radii(fake))}
