"""MIND, the Monge inception distance (Berthet et al. 2026, arXiv 2605.06797): a sliced squared
Wasserstein-2 distance.

3 D times the mean, over 1000 random unit directions, of the squared differences of both sets'
sorted projections, so that a shift by μ in each coordinate costs 3 D μ². The larger set is
thinned to the size of the smaller. Directions and thinning are those of torch-fidelity (torch's
CPU generator, seed 2020; float32). Symmetric but for that draw. Biased upwards, as 1/N and with
the spread: compare equal sizes only. Blind to copies of training images.

Of the sanity checks of Räisä et al. (ICML 2025) it fails "heavy tail".
"""

import numpy as np
import torch

from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import finite, needs

STATISTICS = "sample"
SCORES = {"mind": "lower"}
DRAWS = True
DIRECTIONS = 1000
SEED = 2020
AT_ONCE = 50  # directions


def score(real: Array, fake: Array) -> dict[str, float]:
    """In squared units of the features; 0 for a set and itself.

    Raises:
        ValueError: fewer than 2 images on a side.
    """
    needs("mind", real=(len(real), 2), fake=(len(fake), 2))
    finite(real, fake)
    count = min(len(real), len(fake))
    generator = torch.Generator().manual_seed(SEED)
    sets = []
    for features in (real, fake):
        rows = torch.from_numpy(np.ascontiguousarray(features))
        if len(rows) > count:
            rows = rows[torch.randperm(len(rows), generator=generator)[:count]]
        sets.append(rows.float())
    directions = torch.randn(DIRECTIONS, real.shape[1], generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)

    total = 0.0
    for some in directions.split(AT_ONCE):
        first, second = (np.sort((some @ rows.T).numpy(), axis=1) for rows in sets)
        total += float(((first - second) ** 2).sum(dtype=np.float64))
    return {"mind": 3 * real.shape[1] * total / (DIRECTIONS * count)}
