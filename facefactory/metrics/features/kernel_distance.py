"""Unbiased squared maximum mean discrepancy with the polynomial kernel (x·y / D + 1)³.

KID: Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, §4; the estimator is Gretton et al.
2012, eq. 3, over whole sets instead of random subsets, so that it needs no seed. Unbiased: it may
be negative, and does not depend on set sizes. Symmetric. Blind to copies of training images; a
few far outliers move it as their third power.

Of the sanity checks of Räisä et al. (ICML 2025) it fails "heavy tail".
"""

import numpy as np
import numpy.typing as npt
import scipy.stats

from facefactory.metrics import Array
from facefactory.metrics.features import _kernel
from facefactory.metrics.features._neighbours import finite, needs

STATISTICS = "sample"
SCORES = {"kd": "lower"}


def _ones(features: Array) -> Array:
    return np.ones((len(features), 1))


def score(real: Array, fake: Array) -> dict[str, float]:
    """Expected 0 for two samples of one distribution.

    Raises:
        ValueError: fewer than 2 images on a side.
    """
    needs("kd", real=(len(real), 2), fake=(len(fake), 2))
    finite(real, fake)
    reals, fakes = len(real), len(fake)
    of_reals = _kernel.within(real, _ones(real)).sum() / (reals * (reals - 1))
    of_fakes = _kernel.within(fake, _ones(fake)).sum() / (fakes * (fakes - 1))
    both, _ = _kernel.between(real, fake, _ones(real), _ones(fake))
    return {"kd": float(of_reals + of_fakes - 2 * both.sum() / (reals * fakes))}


def interval(
    real: Array, fake: Array, people: npt.NDArray[np.int64] | None = None
) -> dict[str, tuple[float, float]]:
    """A 95 % interval by leaving out one real (or all of one person) and one fake after the other.

    The jackknife of a U-statistic (Arvesen 1969) costs no more than the score: sums of the
    kernel's rows are enough. Its variance is not too small on average (Efron & Stein 1981); where
    both sets are of one distribution the interval is up to half as wide again as it need be.

    Args:
        people: who is on each real image [N]; their images are no independent evidence.

    Raises:
        ValueError: fewer than 3 images on a side, or than 2 beside those of one person.
    """
    needs("kd's interval", real=(len(real), 3), fake=(len(fake), 3))
    finite(real, fake)
    reals, fakes = len(real), len(fake)
    groups = np.arange(reals) if people is None else np.unique(people, return_inverse=True)[1]
    sizes = np.bincount(groups)
    left = reals - sizes
    if left.min() < 2:
        raise ValueError(
            "kd's interval needs 2 real images beside those of any one person; "
            f"there are {left.min()}"
        )

    # sums of the kernel over pairs, by the person or the fake that is left out
    real_rows = _kernel.within(real, _ones(real))[:, 0]
    fake_rows = _kernel.within(fake, _ones(fake))[:, 0]
    across_reals, across_fakes = _kernel.between(real, fake, _ones(real), _ones(fake))
    own = np.zeros(len(sizes))
    for group in np.flatnonzero(sizes > 1):
        faces = real[groups == group]
        own[group] = _kernel.within(faces, _ones(faces)).sum()
    lost_pairs = 2 * np.bincount(groups, real_rows) - own
    lost_across = np.bincount(groups, across_reals[:, 0])

    # the score without each
    of_reals = real_rows.sum() / (reals * (reals - 1))
    of_fakes = fake_rows.sum() / (fakes * (fakes - 1))
    across = float(across_reals.sum())
    without_real = (
        (real_rows.sum() - lost_pairs) / (left * (left - 1))
        + of_fakes
        - 2 * (across - lost_across) / (left * fakes)
    )
    without_fake = (
        of_reals
        + (fake_rows.sum() - 2 * fake_rows) / ((fakes - 1) * (fakes - 2))
        - 2 * (across - across_fakes[:, 0]) / (reals * (fakes - 1))
    )

    variance = 0.0
    for values in (without_real, without_fake):
        variance += (len(values) - 1) * float(values.var())
    freedom = min(len(sizes), fakes) - 1
    reach = float(scipy.stats.t.ppf(0.975, freedom)) * variance**0.5
    value = float(of_reals + of_fakes - 2 * across / (reals * fakes))
    return {"kd": (value - reach, value + reach)}
