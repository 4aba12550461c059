"""Total AUROC difference with what the published ones (Yeats et al., ECCV 2022; Wang et al., ICML 2023) lack: an interval and a null.

Exact AUROCs of the first 5,000 faces. The interval is by the standard error over resampled faces; the null is the mean over codes that
were dealt out to other faces: what as many dimensions have by chance. Sums over captured attributes.
"""

import numpy as np

from facefactory.metrics import Array, auroc
from facefactory.metrics.codes._attributes import binary, followed, gaps
from facefactory.metrics.codes._factors import needs

SCORES = {
    "tad": "higher",
    "tad_low": "higher",
    "tad_high": "higher",
    "tad_null": "lower",
    "tad_captured": "higher",
}
FACES = 5000
RESAMPLES = 40
SHUFFLES = 10


def score(codes: Array, factors: Array) -> dict[str, float]:
    """The sum, its 95 % interval, what chance makes of it, and how many attributes are captured.

    Raises:
        ValueError: fewer than 20 faces, 2 dimensions or 1 factor with two classes.
    """
    labels = binary(factors)
    needs("tad", codes, labels, dimensions=2)
    codes = codes[:FACES]
    labels = labels[:FACES]
    rng = np.random.default_rng(0)
    follows = followed(labels)
    value, captured = total(codes, labels, follows)
    resampled = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, len(codes), len(codes))
        resampled.append(total(codes[rows], labels[rows], follows)[0])
    shuffled = [total(rng.permutation(codes), labels, follows)[0] for _ in range(SHUFFLES)]
    reach = 1.96 * float(np.std(resampled, ddof=1))
    return {
        "tad": value,
        "tad_low": max(0.0, value - reach),
        "tad_high": value + reach,
        "tad_null": float(np.mean(shuffled)),
        "tad_captured": float(captured),
    }


def total(codes: Array, labels: Array, follows: Array) -> tuple[float, int]:
    """(sum over captured attributes, how many they are)."""
    exact = np.nan_to_num(auroc.score(codes, labels), nan=0.5)
    return gaps(np.maximum(exact, 1 - exact), follows)
