"""Density and coverage (Naeem et al., ICML 2020, arXiv 2002.09797), k = 5 nearest neighbours.

Balls reach from each real image to its 5th neighbour among the reals, edge included (the authors'
program leaves the edge out: the same but for ties). On one distribution and large equal sets
density is 1 and coverage 1 - 2⁻⁵ = 0.969. Not symmetric: balls are drawn around reals only.
Density has no upper bound, and real outliers' wide balls raise it.

Of the sanity checks of Räisä et al. (ICML 2025) it fails "shift, many features" (density),
"outlier among reals" (density), "spread", "modes dropped" (density), "modes thinned" (density),
"modes invented" (coverage), "sphere's radius", "cubes that share a fifth", "scale of a feature",
"one wrong feature of 100", "rounded fakes" (density).
"""

from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import inside, nearest, needs

STATISTICS = "sample"
SCORES = {"density": "higher", "coverage": "higher"}
NEIGHBOURS = 5


def score(real: Array, fake: Array) -> dict[str, float]:
    """density: balls that a fake lies in, over 5; coverage: share of balls with a fake, 0…1.

    Raises:
        ValueError: fewer than 6 reals, or no fake.
    """
    needs("density_coverage", real=(len(real), NEIGHBOURS + 1), fake=(len(fake), 1))
    radii = nearest(real, real, NEIGHBOURS, itself=False).squared[:, -1]
    ((balls, fakes),) = inside(fake, real, radii)
    return {"density": float(balls.mean() / NEIGHBOURS), "coverage": float((fakes > 0).mean())}
