"""Memorisation by nearest neighbours: how near fakes come to training images, by how near new
people come to them.

The median distance of fakes to their nearest training image over that of held-out images to
theirs; the distances are those of Meehan et al. (AISTATS 2020), whose test is `copying_test.py`.
Well below 1, fakes are copies; blur and noise raise it, so above 1 says nothing good. Not
symmetric.
"""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import nearest, needs

STATISTICS = "sample"
SCORES = {"nearest_ratio": "higher"}
THREE = True


def score(train: Array, held_out: Array, fake: Array) -> dict[str, float]:
    """0 (copies) … about 1 (as far from the training set as new images are) and more.

    Raises:
        ValueError: an empty set, or half of the held-out images are training images.
    """
    needs("memorisation", train=(len(train), 1), held_out=(len(held_out), 1), fake=(len(fake), 1))
    usual = np.median(np.sqrt(nearest(held_out, train, 1).squared))
    if usual == 0:
        raise ValueError(
            "memorisation needs held-out images that are not in the training set; half are"
        )
    return {"nearest_ratio": float(np.median(np.sqrt(nearest(fake, train, 1).squared)) / usual)}
