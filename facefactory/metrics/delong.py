"""An AUROC and its variance by placements: the share of the other class that a face stands above.

DeLong, DeLong & Clarke-Pearson, Biometrics 1988, eq. 3-5, from one sorting of a code for all labels (Sun & Xu, IEEE Signal
Processing Letters 2014); by person, Obuchowski, Biometrics 1997; within strata, the covariate-adjusted AUROC of Janes & Pepe,
Biometrika 2009: each face with the label stands among those without it of its own stratum, and the mean goes over the former.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facefactory.metrics import Array

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """Faces sorted by stratum, then by code."""

    faces: Ids  # [n]
    run: Ids | None  # [n] number of the run of equal codes of each; None: no two are equal
    stratum: Ids | None  # [runs] of each run; None: there is one
    start: Ids | None  # [runs] the first run of its stratum


@dataclass(frozen=True)
class Compared:
    """What comes of comparing faces with a label and without it."""

    auroc: float  # NaN: no stratum has both
    variance: float
    cases: int  # faces with the label that are in strata with both


def order(code: Array, strata: Ids | None = None) -> Order:
    """Codes [n] in order, within strata [n] from 0 on where there are some."""
    faces = np.argsort(code, kind="stable")
    if strata is not None:
        faces = faces[np.argsort(strata[faces], kind="stable")]
    in_order = code[faces]
    new = np.r_[True, in_order[1:] != in_order[:-1]]
    if strata is None:
        return Order(faces, None if new.all() else np.cumsum(new) - 1, None, None)

    own = strata[faces]
    begins = np.r_[True, own[1:] != own[:-1]]
    new |= begins
    firsts = np.cumsum(new) - 1
    stratum = own[new]
    start = np.maximum.accumulate(np.where(begins[new], np.arange(len(stratum)), 0))
    return Order(faces, None if new.all() else firsts, stratum, start)


def compare(order: Order, cases: Array, groups: Ids | None = None) -> Compared:
    """AUROC of the codes in this order for `cases` [n] in {0, 1}; `groups` [n]: whose each face is, from 0 on."""
    case = cases[order.faces]
    ones = case
    zeros = 1 - case
    if order.run is not None:
        ones = np.bincount(order.run, ones).astype(np.float64)
        zeros = np.bincount(order.run, zeros).astype(np.float64)

    # placements: of a case the share of controls below it, of a control the share of cases above it
    own = 0 if order.stratum is None else order.stratum
    m = _total(ones, order.stratum)
    n = _total(zeros, order.stratum)
    both = (m > 0) & (n > 0)
    count = float(m[both].sum())
    if count == 0:
        return Compared(float("nan"), float("nan"), 0)
    below = (_below(zeros, order.start) + zeros / 2) / np.maximum(n, 1)[own]
    above = 1 - (_below(ones, order.start) + ones / 2) / np.maximum(m, 1)[own]

    # the mean over cases, and what each face adds to its error
    within = _total(ones * below, order.stratum) / np.maximum(m, 1)
    value = float((within * m)[both].sum() / count)
    share = np.where(both, m / np.maximum(n, 1), 0) / count
    of_case = (below - within[own]) * (both / count)[own]
    of_control = (above - within[own]) * share[own]
    controls = float(n[both].sum())
    if groups is None:
        a = float((ones * of_case) @ of_case) * _free(count)
        b = float((zeros * of_control) @ of_control) * _free(controls)
        return Compared(value, a + b, int(count))

    # sums by person: the same one may be on either side
    there = np.broadcast_to(both[own], below.shape).astype(np.float64)
    if order.run is not None:
        of_case = of_case[order.run]
        of_control = of_control[order.run]
        there = there[order.run]
    whose = groups[order.faces]
    a_sums = np.bincount(whose, case * of_case)
    b_sums = np.bincount(whose, (1 - case) * of_control)
    variance = (
        float(a_sums @ a_sums) * _free(_people(whose, case * there))
        + float(b_sums @ b_sums) * _free(_people(whose, (1 - case) * there))
        + 2 * float(a_sums @ b_sums) * _free(_people(whose, there))
    )
    return Compared(value, max(variance, 0.0), int(count))


def _people(whose: Ids, faces: Array) -> float:
    """Those who have one of some faces [n] in {0, 1}."""
    return float(np.count_nonzero(np.bincount(whose, faces)))


def _total(values: Array, stratum: Ids | None) -> Array:
    """Sums [strata] of values [runs]."""
    if stratum is None:
        return np.array([values.sum()])
    return np.bincount(stratum, values).astype(np.float64)


def _below(values: Array, start: Ids | None) -> Array:
    """Sum of the values of the runs before each, in its stratum."""
    before = np.cumsum(values) - values
    return before if start is None else before - before[start]


def _free(count: float) -> float:
    """n / (n - 1): what makes a mean of squares a variance."""
    return count / max(count - 1, 1)
