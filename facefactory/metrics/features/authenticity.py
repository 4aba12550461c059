"""Authenticity (Alaa et al., ICML 2022, arXiv 2102.08921; "AuthPct"): fakes that are no copies.

A fake is authentic when it is farther from its nearest real image than that image is from its own
nearest real one. The reals are the training set: other reals tell nothing of copies. Not
symmetric. Where train images lie far apart (few of a person) even new faces are called copies,
and noise is authentic: read it beside a score of quality.
"""

from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import nearest, needs

STATISTICS = "sample"
SCORES = {"authenticity": "higher"}
COPIES = {"authenticity": 0.2}  # new pictures of the same people: 0.3 to 0.5


def score(real: Array, fake: Array) -> dict[str, float]:
    """Share of authentic fakes, 0…1; 0 for exact copies.

    Raises:
        ValueError: fewer than 2 reals, or no fake.
    """
    needs("authenticity", real=(len(real), 2), fake=(len(fake), 1))
    to_reals = nearest(fake, real, 1)
    among_reals = nearest(real, real, 1, itself=False).squared[:, 0]
    return {
        "authenticity": float((to_reals.squared[:, 0] > among_reals[to_reals.rows[:, 0]]).mean())
    }
