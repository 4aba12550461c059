"""Total AUROC difference as it is compared now (Wang et al., InfoDiffusion, ICML 2023, §5.3, and the authors' program).

The first 10,000 codes; the mean over five shuffled folds, each scored on the four fifths that are not left out, with exact
AUROCs and no word on how far a dimension spans. It is a sum over captured attributes, so their number stands beside it.
"""

import numpy as np

from facefactory.metrics import Array, auroc
from facefactory.metrics.codes._attributes import binary, followed, gaps
from facefactory.metrics.codes._factors import needs

SCORES = {"tad_infodiffusion": "higher", "tad_infodiffusion_captured": "higher"}
CODES = 10_000
FOLDS = 5


def score(codes: Array, factors: Array) -> dict[str, float]:
    """The sum, 0…½ an attribute, and how many are captured, means over folds, of the factors with two classes.

    Raises:
        ValueError: fewer than 20 faces, 2 dimensions or 1 such factor.
    """
    labels = binary(factors)
    needs("tad_infodiffusion", codes, labels, dimensions=2)
    count = min(len(codes), CODES)
    order = np.arange(count)
    np.random.RandomState(0).shuffle(order)  # as scikit-learn's KFold does

    scored = []
    for left_out in np.array_split(order, FOLDS):
        kept = np.setdiff1d(np.arange(count), left_out)
        exact = np.nan_to_num(auroc.score(codes[kept], labels[kept]), nan=0.5)
        scored.append(gaps(np.maximum(exact, 1 - exact), followed(labels[kept])))
    total, captured = np.mean(scored, 0).tolist()
    return {"tad_infodiffusion": total, "tad_infodiffusion_captured": captured}
