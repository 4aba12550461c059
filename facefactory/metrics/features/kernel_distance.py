"""Unbiased squared maximum mean discrepancy with the polynomial kernel (x·y / D + 1)³.

KID: Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, §4; the estimator is Gretton et al.
2012, eq. 3, over whole sets instead of random subsets, so that it needs no seed. Unbiased: it may
be negative, and does not depend on set sizes. Symmetric. Blind to copies of training images; a
few far outliers move it as their third power.

Of the sanity checks of Räisä et al. (ICML 2025) it fails "heavy tail".
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from facefactory.metrics import Array, intervals
from facefactory.metrics.features import _kernel
from facefactory.metrics.features._neighbours import finite, needs

STATISTICS = "sample"
BY_CLASS = True
SCORES = {"kd": "lower"}
UNBIASED = ("kd",)


def _ones(features: Array) -> Array:
    return np.ones((len(features), 1))


def _unbiased(reals: Any, fakes: Any, of_reals: Any, of_fakes: Any, across: Any) -> Any:
    """The estimate from how many there are, and sums of the kernel over pairs; numbers or arrays."""
    within = of_reals / (reals * (reals - 1)) + of_fakes / (fakes * (fakes - 1))
    return within - 2 * across / (reals * fakes)


def score(real: Array, fake: Array) -> dict[str, float]:
    """Expected 0 for two samples of one distribution.

    Raises:
        ValueError: fewer than 2 images on a side.
    """
    needs("kd", real=(len(real), 2), fake=(len(fake), 2))
    finite(real, fake)
    of_reals = _kernel.within(real, _ones(real)).sum()
    of_fakes = _kernel.within(fake, _ones(fake)).sum()
    across, _ = _kernel.between(real, fake, _ones(real), _ones(fake))
    return {"kd": float(_unbiased(len(real), len(fake), of_reals, of_fakes, across.sum()))}


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
    groups = np.arange(len(real)) if people is None else np.unique(people, return_inverse=True)[1]
    sizes = np.bincount(groups)
    others = len(real) - sizes
    if others.min() < 2:
        raise ValueError(
            "kd's interval needs 2 real images beside those of any one person; "
            f"there are {others.min()}"
        )

    # sums of the kernel's rows
    by_real = _kernel.within(real, _ones(real))[:, 0]
    by_fake = _kernel.within(fake, _ones(fake))[:, 0]
    real_to_fake, fake_to_real = _kernel.between(real, fake, _ones(real), _ones(fake))
    of_reals = by_real.sum()
    of_fakes = by_fake.sum()
    across = real_to_fake.sum()

    # pairs inside a person go only once with the person
    inside = np.zeros(len(sizes))
    for person in np.flatnonzero(sizes > 1):
        faces = real[groups == person]
        inside[person] = _kernel.within(faces, _ones(faces)).sum()
    less_reals = of_reals - 2 * np.bincount(groups, by_real) + inside
    less_across = across - np.bincount(groups, real_to_fake[:, 0])

    # the estimate without each person and without each fake
    without_person = _unbiased(others, len(fake), less_reals, of_fakes, less_across)
    without_fake = _unbiased(
        len(real),
        len(fake) - 1,
        of_reals,
        of_fakes - 2 * by_fake,
        across - fake_to_real[:, 0],
    )
    variance = 0.0
    for values in (without_person, without_fake):
        variance += (len(values) - 1) * float(values.var())

    value = float(_unbiased(len(real), len(fake), of_reals, of_fakes, across))
    freedom = min(len(sizes), len(fake)) - 1
    reach = intervals.quantile(freedom) * variance**0.5
    return {"kd": (value - reach, value + reach)}
