"""Vendi score (Friedman & Dieng, TMLR 2023, arXiv 2210.02410): how many unlike images the fakes
amount to, by cosine similarity.

exp of the entropy of the eigenvalues of K / N, K_ij the cosine of two feature vectors; they are
those of the D × D second moment of the vectors at length 1, whichever is smaller. It sees fakes
only: not symmetric, blind to how good images are (noise is diverse), and it grows with N up to D:
compare equal sizes only.
"""

import numpy as np
import scipy.linalg
from scipy.special import entr

from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import finite, needs

STATISTICS = "sample"
SCORES = {"vendi": "higher"}


def score(real: Array, fake: Array) -> dict[str, float]:
    """1 (all alike) … min(N, D) (all orthogonal).

    Raises:
        ValueError: fewer than 2 fakes, or a feature vector without a direction.
    """
    needs("vendi", fake=(len(fake), 2))
    finite(fake)
    lengths = np.linalg.norm(fake, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise ValueError(
            "vendi needs feature vectors that are not 0: a vector of zeros has no cosine"
        )
    rows = fake / lengths
    moment = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    values = scipy.linalg.eigvalsh(moment / len(rows)).clip(min=0)
    return {"vendi": float(np.exp(entr(values / values.sum()).sum()))}
