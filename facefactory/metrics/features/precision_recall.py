"""Improved precision and recall (Kynkäänniemi et al., NeurIPS 2019, eq. 1-2), k = 3 nearest
neighbours.

A ball reaches from an image to its 3rd neighbour in its own set, edge included. Swapping the sets
swaps the scores. Both grow with the size of the set that balls are drawn around, and one outlier
in it makes a ball that holds much: compare equal sizes only.

Of the sanity checks of Räisä et al. (ICML 2025) it fails "shift", "shift, many features",
"outlier among reals", "outlier among fakes", "spread", "modes dropped", "modes thinned",
"sphere's radius" (recall), "cubes that share a fifth", "one mode for two", "scale of a feature",
"heavy tail", "one wrong feature of 100".
"""

from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import inside, nearest, needs

STATISTICS = "sample"
SCORES = {"precision": "higher", "recall": "higher"}
NEIGHBOURS = 3


def _covered(queries: Array, support: Array) -> float:
    """Share of queries in a ball of the support."""
    radii = nearest(support, support, NEIGHBOURS, itself=False).squared[:, -1]
    ((balls, _),) = inside(queries, support, radii)
    return float((balls > 0).mean())


def score(real: Array, fake: Array) -> dict[str, float]:
    """precision: share of fakes in a ball of reals; recall: of reals in a ball of fakes; 0…1.

    Raises:
        ValueError: fewer than 4 images on a side.
    """
    needs("precision_recall", real=(len(real), NEIGHBOURS + 1), fake=(len(fake), NEIGHBOURS + 1))
    return {"precision": _covered(fake, real), "recall": _covered(real, fake)}
