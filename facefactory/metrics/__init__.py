"""Pure functions from arrays to scores; a file is a metric, its folder says what arrays it
takes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """A normal fitted to features: how many, their mean [D], their covariance [D, D] (count - 1)."""

    count: int
    mean: Array
    covariance: Array


def moments(features: Array) -> Moments:
    """The moments of features [N, D], N > 1."""
    return Moments(len(features), features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)))
