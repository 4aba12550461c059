"""The kernel distance as papers print it: mean and deviation over 100 random subsets of 1000
images of either set.

KID: Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, §4 and its released code; kernel and
estimator as in `kernel_distance.py`. The mean is unbiased; the deviation is that of one subset,
no error of the mean, and ranks nothing. Subsets are those of torch-fidelity (NumPy's legacy
generator, seed 2020). Symmetric but for the draw.
"""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.features import _kernel
from facefactory.metrics.features._neighbours import finite, needs

STATISTICS = "sample"
SCORES = {"kd_subsets": "lower", "kd_subsets_deviation": "lower"}
DRAWS = True
SUBSETS = 100
SIZE = 1000
SEED = 2020


def score(real: Array, fake: Array) -> dict[str, float]:
    """Mean and population deviation over the subsets.

    Raises:
        ValueError: fewer than 1000 images on a side.
    """
    needs("kd_subsets", real=(len(real), SIZE), fake=(len(fake), SIZE))
    finite(real, fake)
    rng = np.random.RandomState(SEED)
    of_reals = np.zeros((len(real), SUBSETS))
    of_fakes = np.zeros((len(fake), SUBSETS))
    for number in range(SUBSETS):
        of_reals[rng.choice(len(real), SIZE, replace=False), number] = 1
        of_fakes[rng.choice(len(fake), SIZE, replace=False), number] = 1

    # sums over the pairs of each subset: the kernel is computed once for all of them
    reals = (of_reals * _kernel.within(real, of_reals)).sum(0)
    fakes = (of_fakes * _kernel.within(fake, of_fakes)).sum(0)
    forth, _ = _kernel.between(real, fake, of_reals[:, :1], of_fakes)
    values = (reals + fakes) / (SIZE * (SIZE - 1)) - 2 * (of_reals * forth).sum(0) / SIZE**2
    return {"kd_subsets": float(values.mean()), "kd_subsets_deviation": float(values.std())}
