"""Codes x contrasts: effects with intervals by person, q values, mutual information, and what is left of them given other labels.

"Given the rest": faces are compared that are alike in all other labels. One score stands for those, the linear prediction of the
label from them (stratifying by it balances them: Rosenbaum & Rubin, Biometrika 1983; JASA 1984), and faces are compared
within its strata (Janes & Pepe, Biometrika 2009). Where few labels make few scores, strata are exact.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.special
import scipy.stats

from facefactory.facts import Label
from facefactory.metrics import Array, delong, intervals, spearman
from facefactory.metrics.codes._factors import binned, classes, informations
from facefactory.results import Contrast, Effect, Estimate, Measure

Ids = npt.NDArray[np.int64]
LEAST_PEOPLE = 8  # on either side of a contrast
STRATA = 20  # of a score that takes more values than this
PER_STRATUM = 25  # faces on the rarer side, below which there are fewer strata
MOST_Q = 0.05
ALONE = "there is no other label"  # why nothing can be given
LEFT = 0.5  # share of the faces with a label that must still have someone to be compared with
RIDGE = 1e-3


@dataclass(frozen=True)
class Column:
    """A contrast with its values [N]: 0 and 1, or numbers; NaN = missing."""

    contrast: Contrast
    values: Array
    freedom: int  # degrees of: people on its rarer side, less one

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(self.values)


@dataclass(frozen=True)
class Found:
    """An effect and how likely chance makes one as far from nothing."""

    estimate: Estimate
    p: float


NOTHING = {"auroc": 0.5, "spearman": 0.0}


def columns(
    labels: Mapping[str, Array],
    schema: Mapping[str, Label],
    groups: Ids,
    min_prevalence: float = 0.0,
) -> tuple[list[Column], dict[str, str]]:
    """The contrasts of labels [N] of people `groups` [N], and why some are left out: a class is rare, or few people are on a side."""
    groups = np.unique(groups, return_inverse=True)[1]
    made = []
    left_out = {}
    for name, values in labels.items():
        for against, measure, column in _contrasts(values, schema[name]):
            known = np.isfinite(column)
            share = float(column[known].mean()) if measure == "auroc" and known.any() else 1.0
            contrast = Contrast(name, against, measure, share, int(known.sum()))
            reason = _lacking(column, groups, contrast, min_prevalence)
            if reason:
                left_out[contrast.name] = reason
            else:
                made.append(Column(contrast, column, _people(column, groups, measure) - 1))
    return made, left_out


def _contrasts(values: Array, label: Label) -> list[tuple[str, Measure, Array]]:
    """(class against the rest, measure, column) of a label."""
    if label.kind in ("real", "ordinal"):
        return [("", "spearman", values)]
    if len(label.classes) == 2:
        shown = "" if label.kind == "binary" else label.classes[1]
        return [(shown, "auroc", values)]
    against: list[tuple[str, Measure, Array]] = []
    for number, word in enumerate(label.classes):
        column = np.where(np.isfinite(values), values == number, np.nan)
        against.append((word, "auroc", column))
    return against


def _people(column: Array, groups: Ids, measure: Measure) -> int:
    """On the rarer side of a contrast; of numbers, half of all."""
    if measure == "spearman":
        return _counted(groups[np.isfinite(column)]) // 2
    return min(_counted(groups[column == 0]), _counted(groups[column == 1]))


def _counted(groups: Ids) -> int:
    """Different ones."""
    return int(np.count_nonzero(np.bincount(groups)))


def _lacking(column: Array, groups: Ids, contrast: Contrast, least: float) -> str:
    """Why a contrast says nothing; "": it does."""
    known = column[np.isfinite(column)]
    people = _people(column, groups, contrast.measure)
    if people < LEAST_PEOPLE:
        return f"{people} people are on its rarer side; it needs {LEAST_PEOPLE}"
    if np.ptp(known) == 0:
        return "all faces are alike in it"
    rarer = min(contrast.prevalence, 1 - contrast.prevalence)
    rare = contrast.measure == "auroc" and rarer < least
    return f"{rarer:.1%} of the faces are on its rarer side" if rare else ""


# -- the matrix ----------------------------------------------------------------------------


def matrix(
    codes: Array, contrasts: Sequence[Column], groups: Ids, threads: int = 1
) -> list[list[Found]]:
    """What each dimension [D] of codes [N, D] has with each contrast [C], in threads; the numbers do not depend on them."""
    groups = np.unique(groups, return_inverse=True)[1]
    own = None if len(np.unique(groups)) == len(groups) else groups
    patterns: dict[bytes, list[int]] = {}
    for number, column in enumerate(contrasts):
        patterns.setdefault(column.known.tobytes(), []).append(number)
    ranked = {
        number: spearman.ranks(column.values[column.known])
        for number, column in enumerate(contrasts)
        if column.contrast.measure == "spearman"
    }

    def row(code: Array) -> list[Found]:
        found: dict[int, Found] = {}
        for members in patterns.values():
            known = contrasts[members[0]].known
            whose = None if own is None else own[known]
            order = delong.order(code[known])
            ranks = None
            for number in members:
                column = contrasts[number]
                if number in ranked:
                    ranks = spearman.ranks(code[known]) if ranks is None else ranks
                    value, variance = spearman.compare(ranks, ranked[number], whose)
                else:
                    compared = delong.compare(order, column.values[known], whose)
                    value, variance = compared.auroc, compared.variance
                found[number] = tested(value, variance, column)
        return [found[number] for number in range(len(contrasts))]

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(row, codes.T))


def tested(value: float, variance: float, column: Column) -> Found:
    """With a 95 % interval and p of "it is nothing", by Student's t: few people are less certain."""
    nothing = NOTHING[column.contrast.measure]
    if not np.isfinite(value):
        return Found(Estimate(nothing, nothing, nothing), 1.0)
    error = variance**0.5
    reach = intervals.quantile(column.freedom) * error
    p = 2 * float(scipy.special.stdtr(column.freedom, -abs(value - nothing) / max(error, 1e-12)))
    low = max(value - reach, 2 * nothing - 1)
    return Found(Estimate(value, low, min(value + reach, 1.0)), p)


def nats(codes: Array, contrasts: Sequence[Column]) -> Array:
    """Mutual information of each dimension, in bins, and each contrast [D, C], nats."""
    found = np.zeros((codes.shape[1], len(contrasts)))
    bins = binned(codes)
    for number, column in enumerate(contrasts):
        wanted = classes(column.values[column.known])
        kept = bins if column.known.all() else bins[column.known]
        found[:, number] = informations(kept, wanted)
    return found


# -- given other labels --------------------------------------------------------------------


class Others:
    """Labels as columns of numbers, from which one can be predicted by the rest of them."""

    def __init__(self, labels: Mapping[str, Array], schema: Mapping[str, Label]) -> None:
        blocks = {name: _dummies(labels[name], schema[name]) for name in labels}
        empty = np.empty((len(next(iter(labels.values()), ())), 0))
        self.names = list(blocks)
        self.inputs = np.hstack([empty, *blocks.values()])
        self.owner = [name for name, block in blocks.items() for _ in range(block.shape[1])]
        self.products = self.inputs.T @ self.inputs / max(len(self.inputs), 1)

    def strata(self, column: Column, rest: Sequence[str]) -> Ids:
        """Of the faces that `column` knows [n], those alike in the labels `rest` in one stratum, from 0 on."""
        chosen = np.flatnonzero([name in rest for name in self.owner])
        target = _standardised(column.values[:, None])
        wanted = self.inputs[:, chosen].T @ target / len(target)
        shrunk = self.products[np.ix_(chosen, chosen)] + RIDGE * np.eye(len(chosen))
        score = self.inputs[:, chosen] @ np.linalg.solve(shrunk, wanted)
        return cut(score[column.known, 0], column)


def _dummies(values: Array, label: Label) -> Array:
    """Numbers as they are, classes a column each [N, k]; of deviation 1, what is missing at the mean."""
    several = len(label.classes) > 2 and label.kind != "ordinal"
    numbers = range(1, len(label.classes)) if several else ()
    columns = [np.where(np.isfinite(values), values == number, np.nan) for number in numbers]
    return _standardised(np.stack(columns or [values], 1))


def _standardised(columns: Array) -> Array:
    centred = columns - np.nanmean(columns, 0)
    deviation = np.nanstd(columns, 0)
    return np.nan_to_num(centred / np.where(deviation > 1e-9, deviation, 1))


def cut(score: Array, column: Column) -> Ids:
    """A score [n] as strata: its values where they are few, else shares of equal size, fewer where faces are few."""
    values, strata = np.unique(np.round(score, 9), return_inverse=True)
    if len(values) <= STRATA:
        return strata
    faces = column.contrast.faces
    if column.contrast.measure == "auroc":
        faces = round(faces * min(column.contrast.prevalence, 1 - column.contrast.prevalence))
    parts = max(1, min(STRATA, faces // PER_STRATUM))
    edges = np.unique(np.quantile(score, np.linspace(0, 1, parts + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, score, side="right"), return_inverse=True)[1]


def within(code: Array, column: Column, strata: Ids, groups: Ids) -> Found | None:
    """The effect of a code [N] among faces that are alike; None: too few have anyone to be compared with."""
    known = column.known
    whose = groups[known]
    if column.contrast.measure == "spearman":
        first = spearman.ranks(code[known], strata)
        second = spearman.ranks(column.values[known], strata)
        return tested(*spearman.compare(first, second, whose), column)
    cases = column.values[known]
    compared = delong.compare(delong.order(code[known], strata), cases, whose)
    if compared.cases < max(LEFT * cases.sum(), LEAST_PEOPLE):
        return None
    return tested(compared.auroc, compared.variance, column)


# -- all of it -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """The effects of D dimensions on C contrasts."""

    contrasts: list[Contrast]
    rows: list[list[Effect]]  # [D][C]
    left_out: dict[str, str]  # contrast -> why it is not there
    among_labels: dict[str, dict[str, float]]  # the contrasts' own correlations


def table(
    codes: Array,
    labels: Mapping[str, Array],
    schema: Mapping[str, Label],
    groups: Ids,
    *,
    attribute: Callable[[str], str] = str,
    min_effect: float = 0.2,
    min_prevalence: float = 0.0,
    threads: int = 1,
) -> Table:
    """All effects of codes [N, D]; `attribute`: what a label is about, the same for synonyms, which never explain each other.

    What is left given other labels is looked at where an effect is `min_effect` (of 2 AUROC - 1, or Spearman's) at least
    and no accident; all other cells count as tested in vain.
    """
    groups = np.unique(groups, return_inverse=True)[1]
    contrasts, left_out = columns(labels, schema, groups, min_prevalence)
    shape = (codes.shape[1], len(contrasts))
    found = matrix(codes, contrasts, groups, threads)
    q = adjusted([[cell.p for cell in row] for row in found], shape)
    told = nats(codes, contrasts)

    # given the rest, where there is something to take away
    large = [
        [
            abs(_size(cell, column)) >= min_effect
            for cell, column in zip(row, contrasts, strict=True)
        ]
        for row in found
    ]
    rest = Rest(codes, contrasts, groups, Others(labels, schema), attribute)
    promising = np.reshape(large, shape).astype(bool) & (q <= MOST_Q)
    given, absent = rest.given(promising)
    chances = np.ones(shape)
    for cell, left in given.items():
        chances[cell] = left.p
    given_q = adjusted(chances, shape)

    # together
    rows = []
    for dimension, row in enumerate(found):
        effects = []
        for number, (one, column) in enumerate(zip(row, contrasts, strict=True)):
            cell = (dimension, number)
            effect = Effect(
                one.estimate.value,
                one.estimate.low,
                one.estimate.high,
                q=float(q[cell]),
                nats=float(told[cell]),
                absent=absent.get(cell, ""),
            )
            if cell in given:
                among = given[cell].estimate
                effect = dataclasses.replace(effect, given=among, given_q=float(given_q[cell]))
                if beyond(among, column.contrast) < min_effect:
                    candidates = np.flatnonzero(promising[dimension]).tolist()
                    name = rest.explained_by(cell, one, candidates)
                    effect = dataclasses.replace(effect, explained_by=name)
            effects.append(effect)
        rows.append(effects)
    names = [column.contrast for column in contrasts]
    return Table(names, rows, left_out, correlations(contrasts))


Cell = tuple[int, int]  # dimension, contrast


@dataclass(frozen=True)
class Rest:
    """What is left of the effects of codes [N, D] on contrasts among faces that are alike."""

    codes: Array
    contrasts: Sequence[Column]
    groups: Ids
    others: Others
    attribute: Callable[[str], str]

    def given(self, wanted: npt.NDArray[np.bool_]) -> tuple[dict[Cell, Found], dict[Cell, str]]:
        """Of wanted cells [D, C], given all labels that are about something else, and why some have nothing left."""
        found: dict[Cell, Found] = {}
        absent: dict[Cell, str] = {}
        for number in np.flatnonzero(wanted.any(0)).tolist():
            column = self.contrasts[number]
            mine = self.attribute(column.contrast.label)
            names = [name for name in self.others.names if self.attribute(name) != mine]
            strata = self.others.strata(column, names) if names else None
            for dimension in np.flatnonzero(wanted[:, number]).tolist():
                if strata is None:
                    absent[dimension, number] = ALONE
                    continue
                left = within(self.codes[:, dimension], column, strata, self.groups)
                if left is None:
                    absent[dimension, number] = "too few faces are alike in the other labels"
                else:
                    found[dimension, number] = left
        return found, absent

    def explained_by(self, cell: Cell, whole: Found, candidates: Sequence[int]) -> str:
        """The label that leaves less than half of an effect when faces are alike in it, and least of all; "": none does.

        `candidates`: contrasts that the dimension goes with.
        """
        dimension, number = cell
        column = self.contrasts[number]
        mine = self.attribute(column.contrast.label)
        least = abs(_size(whole, column)) / 2
        name = ""
        for label in dict.fromkeys(self.contrasts[other].contrast.label for other in candidates):
            if self.attribute(label) == mine:
                continue
            strata = self.others.strata(column, [label])
            left = within(self.codes[:, dimension], column, strata, self.groups)
            if left is not None and abs(_size(left, column)) < least:
                least = abs(_size(left, column))
                name = label
        return name


def adjusted(chances: object, shape: tuple[int, int]) -> Array:
    """q values of a whole matrix of p (Benjamini & Hochberg, JRSS B 1995)."""
    p = np.reshape(np.asarray(chances, np.float64), shape)
    if not p.size:
        return p
    return np.asarray(scipy.stats.false_discovery_control(p.ravel())).reshape(shape)


def beyond(estimate: Estimate, contrast: Contrast) -> float:
    """The end of an interval that is nearer to nothing, as a rank correlation without sign; negative: it holds nothing."""
    low, high = contrast.size(estimate.low), contrast.size(estimate.high)
    return max(low, -high)


def _size(cell: Found, column: Column) -> float:
    return column.contrast.size(cell.estimate.value)


def correlations(contrasts: Sequence[Column]) -> dict[str, dict[str, float]]:
    """Spearman's correlation of each two contrasts of unlike labels (phi of two classes), among faces that have both."""
    ranked = np.zeros((len(contrasts), len(contrasts[0].values) if contrasts else 0))
    for row, column in zip(ranked, contrasts, strict=True):
        row[column.known] = spearman.ranks(column.values[column.known])
    known = np.array([column.known for column in contrasts], np.float64).reshape(ranked.shape)
    squares = np.square(ranked) @ known.T
    spread = np.sqrt(squares * squares.T)
    alike = ranked @ ranked.T / np.where(spread > 0, spread, 1)

    # of unlike labels: the classes of one exclude each other
    found: dict[str, dict[str, float]] = {}
    for column, values in zip(contrasts, alike.tolist(), strict=True):
        one = column.contrast
        pairs = zip(contrasts, values, strict=True)
        others = {
            other.contrast.name: value
            for other, value in pairs
            if other.contrast.label != one.label
        }
        found[one.name] = others
    return found
