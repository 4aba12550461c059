"""Spearman's rank correlation of a code and numbers, with its variance, by person and within strata.

The variance is that of the influence of each face (Croux & Dehon, Statistical Methods & Applications 2010, §2), summed by person.
Within strata ranks are those among the faces of the stratum, and their products are pooled.
"""

import numpy as np
import numpy.typing as npt
import scipy.stats

from facefactory.metrics import Array

Ids = npt.NDArray[np.int64]


def ranks(values: Array, strata: Ids | None = None) -> Array:
    """Midranks [n] less their mean, as shares of the faces that are ranked together; in strata from 0 on."""
    if strata is None:
        return (scipy.stats.rankdata(values) - (len(values) + 1) / 2) / len(values)
    found = np.empty(len(values))
    by_stratum = np.argsort(strata, kind="stable")
    for members in np.split(by_stratum, np.flatnonzero(np.diff(strata[by_stratum])) + 1):
        found[members] = ranks(values[members])
    return found


def compare(first: Array, second: Array, groups: Ids | None = None) -> tuple[float, float]:
    """(correlation, variance) of `ranks` [n]; (NaN, NaN) where one of them is constant."""
    spread = float(np.sqrt((first @ first) * (second @ second)))
    if spread < 1e-12:
        return float("nan"), float("nan")
    value = float(first @ second) / spread

    # a face moves the ranks of the others too
    influence = first * second + _above(first, second) + _above(second, first)
    influence = (influence - influence.mean()) / spread
    sums = influence if groups is None else np.bincount(groups, influence)
    people = len(sums) if groups is None else np.count_nonzero(np.bincount(groups))
    return value, float(sums @ sums) * float(people / max(people - 1, 1))


def _above(first: Array, second: Array) -> Array:
    """Mean over faces of the second rank where the first is not below a face's own [n]."""
    order = np.argsort(first, kind="stable")
    found = np.empty(len(first))
    found[order] = np.cumsum(second[order][::-1])[::-1] / len(first)
    return found
