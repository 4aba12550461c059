"""Total AUROC difference as first published (Yeats et al., NashAE, ECCV 2022, §4.2, and the authors' notebook).

The AUROC of a dimension comes from 101 thresholds between its ends; one that spans 0.2 at most knows nothing. It is a sum over
captured attributes, so their number stands beside it; it depends on how many dimensions a code has.
"""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.codes._attributes import binary, followed, gaps
from facefactory.metrics.codes._factors import needs

SCORES = {"tad_nashae": "higher", "tad_nashae_captured": "higher"}
THRESHOLDS = 101
SPAN = 0.2


def score(codes: Array, factors: Array) -> dict[str, float]:
    """The sum, 0…½ an attribute, and how many are captured, of the factors with two classes.

    Raises:
        ValueError: fewer than 20 faces, 2 dimensions or 1 such factor.
    """
    labels = binary(factors)
    needs("tad_nashae", codes, labels, dimensions=2)
    auroc = np.full((codes.shape[1], labels.shape[1]), 0.5)
    for dimension, code in enumerate(codes.T):
        if np.ptp(code) > SPAN:
            above = code[:, None] >= np.linspace(code.min(), code.max(), THRESHOLDS)
            for number, label in enumerate(labels.T):
                auroc[dimension, number] = _area(above, label)
    total, captured = gaps(auroc, followed(labels))
    return {"tad_nashae": total, "tad_nashae_captured": float(captured)}


def _area(above: Array, label: Array) -> float:
    """Below the curve of these thresholds [N, T], by the better sign."""
    hits = above[label == 1].mean(0)
    alarms = above[label == 0].mean(0)
    area = float(np.trapezoid(hits[::-1], alarms[::-1]))
    # above the last threshold there is nothing
    area += 0.5 * float(alarms[-1] * hits[-1])
    return max(area, 1 - area)
