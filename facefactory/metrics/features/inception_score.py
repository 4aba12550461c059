"""Inception score (Salimans et al., NeurIPS 2016, §4): exp of the mean of KL(p(y|x) ‖ p(y)), a
mean over 10 parts.

Parts are those of torch-fidelity (NumPy's legacy generator, seed 2020). It sees fakes only: reals
are not asked for anything, so it is not symmetric, and it is blind to how images of a class look,
to copies and to what the classes of the network do not tell apart (ImageNet has no class "face"):
kept for comparability. Biased upwards for few images.
"""

import numpy as np
from scipy.special import log_softmax

from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import finite, needs

STATISTICS = "logits"
SCORES = {"is": "higher"}
DRAWS = True
PARTS = 10
SEED = 2020


def score(real: Array, fake: Array) -> dict[str, float]:
    """1 (one answer for all) … K (all classes, each certain), from logits [N, K] of the fakes.

    Raises:
        ValueError: fewer than 20 fakes.
    """
    needs("inception_score", fake=(len(fake), 2 * PARTS))
    finite(fake)
    shuffled = fake[np.random.RandomState(SEED).permutation(len(fake))]
    logs = log_softmax(shuffled, axis=1)
    values = []
    for part in range(PARTS):
        of_part = logs[part * len(fake) // PARTS : (part + 1) * len(fake) // PARTS]
        p = np.exp(of_part)
        marginal = p.mean(0)
        # p = 0 adds nothing, and the marginal is 0 only there
        divergence = (
            p * (of_part - np.log(marginal, where=marginal > 0, out=np.zeros_like(marginal)))
        ).sum(1)
        values.append(np.exp(divergence.mean()))
    return {"is": float(np.mean(values))}
