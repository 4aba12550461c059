"""Intervals by person: images of one person are no independent evidence.

Student's t with the bootstrap's standard error: percentiles of the bootstrap are too narrow for a
few people (Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician
2015, on narrowness bias).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from facefactory.metrics import Array

Ids = npt.NDArray[np.int64]
Statistic = Callable[[Ids], Array | float]  # of image positions; NaN where they lack a class


def quantile(freedom: int) -> float:
    """Of Student's t, from which 2.5 % lie above: half a 95 % interval, in standard errors."""
    return float(stdtrit(freedom, 0.975))


def bootstrap(statistic: Statistic, groups: Ids, resamples: int = 300) -> Array:
    """Values [resamples, …] of a statistic when whole groups are drawn with replacement (seed 0)."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    drawn = (rng.integers(0, len(members), len(members)) for _ in range(resamples))
    return np.stack(
        [statistic(np.concatenate([members[number] for number in choice])) for choice in drawn]
    )


def student(
    statistic: Statistic, groups: Ids, classes: npt.NDArray[np.generic]
) -> tuple[Array, Array, Array]:
    """A statistic of all images, the half width of its 95 % interval, and the p value of "it is 0", each in its shape.

    There are as many degrees of freedom as the rarest of the classes that it compares has people, less one.
    """
    freedom = max(1, min(len(np.unique(groups[classes == one])) for one in np.unique(classes)) - 1)
    value = np.asarray(statistic(np.arange(len(groups))))
    error = np.nanstd(bootstrap(statistic, groups), 0, ddof=1)
    p = 2 * stdtr(freedom, -np.abs(value) / error.clip(min=1e-12))
    return value, quantile(freedom) * error, p
