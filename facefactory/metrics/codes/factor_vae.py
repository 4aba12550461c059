"""The FactorVAE score (Kim & Mnih, ICML 2018, §4): of faces that are alike in one factor, which dimension varies least?

A table from that dimension to the factor is made from some batches, and its accuracy is that on others; guessing takes the
most frequent factor. Real faces cannot be drawn with a factor fixed, so a batch is of faces of one class of a factor (a number is
cut into equal shares), and variances are shares of those over all faces. Dimensions that hardly vary take no part. A rotated code
can score 1: it is enough that each factor has a dimension of which it is the largest part.
"""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.codes._factors import classes, needs

SCORES = {"factor_vae": "higher"}
BATCH = 64  # faces
BATCHES = 800  # that make the table, and as many that test it
SPAN = 0.05  # standard deviation, as a share of the largest, from which a dimension varies


def score(codes: Array, factors: Array) -> dict[str, float]:
    """0…1, 0 for guessing; the same for the same faces.

    Raises:
        ValueError: fewer than 20 faces, 2 dimensions or 2 factors that vary.
    """
    varying = factors[:, np.nanstd(factors, 0) > 0]
    needs("factor_vae", codes, varying, dimensions=2, count=2)
    deviation = codes.std(0)
    active = deviation > SPAN * deviation.max()
    if not active.any():
        return {"factor_vae": 0.0}
    standard = codes[:, active] / deviation[active]

    # votes: the factor that was fixed, and the dimension that varies least
    rng = np.random.default_rng(0)
    fixed = rng.integers(0, varying.shape[1], 2 * BATCHES)
    least = np.empty(2 * BATCHES, np.int64)
    members = [_members(factor) for factor in varying.T]
    for number, factor in enumerate(fixed):
        groups = members[factor]
        group = groups[rng.integers(len(groups))]
        batch = standard[group[rng.integers(0, len(group), BATCH)]]
        least[number] = batch.var(0).argmin()

    # a table from half of them, tried on the others
    votes = np.zeros((standard.shape[1], varying.shape[1]))
    np.add.at(votes, (least[:BATCHES], fixed[:BATCHES]), 1)
    said = votes.argmax(1)[least[BATCHES:]]
    right = float((said == fixed[BATCHES:]).mean())
    chance = float(np.bincount(fixed[BATCHES:]).max() / BATCHES)
    return {"factor_vae": max(0.0, (right - chance) / (1 - chance))}


def _members(factor: Array) -> list[np.ndarray]:
    """Faces of each class, of two faces at least."""
    known = np.flatnonzero(np.isfinite(factor))
    wanted = classes(factor[known])
    groups = [known[wanted == number] for number in range(int(wanted.max()) + 1)]
    return [group for group in groups if len(group) > 1]
