"""Nearest neighbours of feature vectors by Euclidean distance: exact, and in blocks of
`BLOCK_BYTES`.

One float32 matrix product tells which pairs can matter; those few are measured again in float64,
from differences. No pair is missed: a sum of D products differs from its float32 value by at most
D·u·|x||y| (1 + D·u), u = 2⁻²⁴, in any order (Higham, Accuracy and Stability of Numerical
Algorithms, 2002, §3.1), so a squared distance does by less than `_error(D)` times (|x|² + |y|²).
A block with too many close calls (one image repeated, whole numbers) is done in float64 instead;
there, squared distances below their own rounding error are 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facefactory.metrics import Array

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

ROWS = 2048  # of features that are copied at once
BLOCK_BYTES = 2**26  # of one block of float32 distances
CLOSE_CALLS = 64  # pairs a query that are measured again, at most


@dataclass(frozen=True)
class Nearest:
    """Of each query its nearest rows, nearest first: squared distances and row numbers [N, k]."""

    squared: Array
    rows: Ids


def _error(columns: int, precision: float) -> float:
    """A squared distance's largest error as a share of |x|² + |y|².

    16 is for the roundings outside the sum (of rows, norms, additions and of the bounds compared
    with), 1 % for D·u.
    """
    return 1.01 * (columns + 16) * precision


def _parts(count: int) -> Iterator[slice]:
    """Slices of rows of which few copies are made at once."""
    for start in range(0, count, ROWS):
        yield slice(start, min(start + ROWS, count))


def _squared(first: Array, of_first: Ids, second: Array, of_second: Ids) -> Array:
    """Squared distances of chosen rows, pair by pair, from differences."""
    squared = np.empty(len(of_first))
    for part in _parts(len(of_first)):
        squared[part] = ((first[of_first[part]] - second[of_second[part]]) ** 2).sum(1)
    return squared


class _Pairs:
    """All pairs of queries [N, D] and support [M, D], block by block.

    Rows are moved towards 0 and scaled to norms of at most 1 first, where float32 is finest.
    """

    def __init__(self, queries: Array, support: Array) -> None:
        self.queries = queries
        self.support = support
        self.centre = support[:100].mean(0)  # of few: it need not be exact
        self.scale = float(np.max([self._reach(queries), self._reach(support)])) or 1.0
        finite(np.array(self.scale))
        self.single = _error(support.shape[1], 2.0**-24)
        self.double = _error(support.shape[1], 2.0**-53)

        self.support_squares = np.empty(len(support))
        self.support_single = np.empty(support.shape, np.float32)
        for part in _parts(len(support)):
            moved = self.moved(support[part])
            self.support_squares[part] = (moved**2).sum(1)
            self.support_single[part] = moved

    def _reach(self, rows: Array) -> float:
        """At least the largest distance of a row from the centre."""
        largest = [np.abs(rows[part] - self.centre).max() for part in _parts(len(rows))]
        return float(np.max(largest) * np.sqrt(rows.shape[1]))

    def moved(self, rows: Array) -> Array:
        return (rows - self.centre) / self.scale

    def blocks(self) -> Iterator[slice]:
        """Slices of queries."""
        rows = max(1, BLOCK_BYTES // (4 * len(self.support)))
        for start in range(0, len(self.queries), rows):
            yield slice(start, min(start + rows, len(self.queries)))

    def roughly(self, block: slice) -> tuple[npt.NDArray[np.float32], Array]:
        """Float32 squared distances [n, M] of a block, scaled, and its squared norms [n]."""
        moved = self.moved(self.queries[block])
        squares = (moved**2).sum(1)
        distances = (-2 * moved).astype(np.float32) @ self.support_single.T
        distances += self.support_squares.astype(np.float32)
        distances += squares.astype(np.float32)[:, None]
        return distances, squares

    def in_double(self, block: slice) -> Array:
        """Float64 squared distances [n, M] of a block, scaled; those lost in rounding are 0."""
        moved = self.moved(self.queries[block])
        squares = (moved**2).sum(1)[:, None]
        distances = np.empty((len(moved), len(self.support)))
        for part in _parts(len(self.support)):
            norms = squares + self.support_squares[part]
            found = norms - 2 * moved @ self.moved(self.support[part]).T
            distances[:, part] = np.where(found <= self.double * norms, 0, found)
        return distances


def nearest(queries: Array, support: Array, k: int, *, itself: bool = True) -> Nearest:
    """The k nearest of `support` [M, D] to each of `queries` [N, D]; of equals the first ones.

    Args:
        itself: False: queries and support are one set, and no row is its own neighbour.
    """
    pairs = _Pairs(queries, support)
    squared = np.empty((len(queries), k))
    rows = np.empty((len(queries), k), np.int64)
    for block in pairs.blocks():
        count = block.stop - block.start
        own = np.arange(block.start, block.stop)
        distances, squares = pairs.roughly(block)
        if not itself:
            distances[np.arange(count), own] = np.inf

        # k rows lie within `farthest`: of rough distance `kth` at most, of norm |x| + distance
        kth = np.partition(distances, k - 1, axis=1)[:, k - 1].astype(np.float64)
        error = pairs.single
        farthest = (kth + 3 * error * squares) / (1 - 2 * error)
        # every row as near as that has a rough distance below `limit`, by the same rule
        limit = farthest * (1 + 2 * error) + 3 * error * squares
        query, row = np.nonzero(
            distances <= limit[:, None].astype(np.float32) * np.float32(1.000001)
        )
        if len(query) <= CLOSE_CALLS * k * count:
            exact = _squared(queries[block], query, support, row)
        else:
            doubles = pairs.in_double(block)
            if not itself:
                doubles[np.arange(count), own] = np.inf
            kth = np.partition(doubles, k - 1, axis=1)[:, k - 1]
            query, row = _smallest(doubles, kth, k)
            exact = doubles[query, row] * pairs.scale**2

        order = np.lexsort((row, exact, query))
        first = np.searchsorted(query[order], np.arange(count))
        chosen = order[first[:, None] + np.arange(k)]
        squared[block] = exact[chosen]
        rows[block] = row[chosen]
    return Nearest(squared, rows)


def _smallest(distances: Array, kth: Array, k: int) -> tuple[Ids, Ids]:
    """(query, row) of the k smallest of each query's distances; of equals the first ones."""
    below = distances < kth[:, None]
    ties = distances == kth[:, None]
    wanted = k - below.sum(1, keepdims=True)
    query, row = np.nonzero(below | (ties & (ties.cumsum(1) <= wanted)))
    return query, row


def inside(queries: Array, centres: Array, *squared_radii: Array) -> list[tuple[Ids, Ids]]:
    """Balls around `centres` [M, D] and the queries [N, D] that lie in them, edges included.

    Returns: for each set of squared radii [M]: in how many balls each query lies [N], and how many
        queries each ball holds [M].
    """
    pairs = _Pairs(queries, centres)
    counts = [
        (np.zeros(len(queries), np.int64), np.zeros(len(centres), np.int64)) for _ in squared_radii
    ]
    for block in pairs.blocks():
        distances, squares = pairs.roughly(block)
        error = pairs.single
        doubt = (error * squares).astype(np.float32)[:, None]
        doubles: Array | None = None

        # what single precision leaves open is looked at again in double
        for (by_query, by_centre), radii in zip(counts, squared_radii, strict=True):
            scaled = radii / pairs.scale**2
            doubts = error * pairs.support_squares
            certain = distances + doubt <= (scaled - doubts).astype(np.float32)
            possible = distances - doubt <= (scaled + doubts).astype(np.float32)
            query, row = np.nonzero(possible & ~certain)
            slack = 2 * pairs.double * (squares[query] + pairs.support_squares[row])
            if len(query) <= CLOSE_CALLS * (block.stop - block.start):
                exact = _squared(queries[block], query, centres, row) / pairs.scale**2
            else:
                doubles = pairs.in_double(block) if doubles is None else doubles
                exact = doubles[query, row]
            certain[query, row] = exact <= scaled[row] + slack
            by_query[block] = certain.sum(1)
            by_centre += certain.sum(0)
    return counts


def needs(metric: str, **sets: tuple[int, int]) -> None:
    """Refuse sets that are too small: name -> how many there are and how many are needed.

    Raises:
        ValueError: which set is too small, and how many images it needs.
    """
    for name, (count, needed) in sets.items():
        if count < needed:
            raise ValueError(f"{metric} needs at least {needed} {name} images; there are {count}")


def finite(*sets: Array) -> None:
    """Refuse what no score can be computed of.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    if not all(np.isfinite(values).all() for values in sets):
        raise ValueError("features hold NaN or infinite values")
