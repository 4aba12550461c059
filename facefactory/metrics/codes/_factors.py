"""What the scores of codes share: factors as classes, codes in bins, and what one tells of the other, in nats."""

import numpy as np
import numpy.typing as npt

from facefactory.metrics import Array

Classes = npt.NDArray[np.int64]
MOST_CLASSES = 20  # different values of a factor, above which it is a number
BINS = 20  # of a code's dimension (Locatello et al., ICML 2019, §C)
PARTS = 10  # as many faces in each, of a factor that is a number
LEAST = 20  # faces


def needs(metric: str, codes: Array, factors: Array, dimensions: int = 1, count: int = 1) -> None:
    """ValueError: there are fewer faces, dimensions or factors than a metric can do with, or codes are not finite."""
    rows, columns = codes.shape
    if rows < LEAST or columns < dimensions or factors.shape[1] < count:
        raise ValueError(
            f"{metric} needs at least {LEAST} faces, {dimensions} dimensions and {count} factors; "
            f"there are {rows}, {columns} and {factors.shape[1]}."
        )
    if not np.isfinite(codes).all():
        raise ValueError(f"{metric}: codes are NaN or infinite.")


def is_number(factor: Array) -> bool:
    """Whether a factor [n] without missing values is a number rather than a class."""
    return len(np.unique(factor)) > MOST_CLASSES


def classes(factor: Array) -> Classes:
    """A factor [n] without missing values -> class numbers from 0 on; a number is cut into equal shares."""
    if not is_number(factor):
        return np.unique(factor, return_inverse=True)[1]
    edges = np.unique(np.quantile(factor, np.linspace(0, 1, PARTS + 1)[1:-1]))
    return np.searchsorted(edges, factor, side="right")


def binned(codes: Array) -> Classes:
    """Codes [n, D] -> numbers of bins of equal width between each dimension's ends [n, D]."""
    low = codes.min(0)
    width = (codes.max(0) - low) / BINS
    steps = (codes - low) / np.where(width > 0, width, 1)
    return steps.astype(np.int64).clip(max=BINS - 1)


def entropy(counts: Array) -> float:
    """Of counts, nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def tables(bins: Classes, wanted: Classes) -> Array:
    """How many faces of each class are in each bin of every dimension: bins [n, D] and classes [n] -> [D, bins, classes]."""
    rows = int(bins.max(initial=0)) + 1
    columns = int(wanted.max(initial=0)) + 1
    found = np.empty((bins.shape[1], rows * columns))
    for dimension, column in enumerate(bins.T):
        found[dimension] = np.bincount(column * columns + wanted, minlength=rows * columns)
    return found.reshape(-1, rows, columns)


def informations(bins: Classes, wanted: Classes) -> Array:
    """Mutual information of every dimension's bins [n, D] and classes [n], nats [D], from their counts."""
    counts = tables(bins, wanted)
    return (
        _entropies(counts.sum(2))
        + _entropies(counts.sum(1))
        - _entropies(counts.reshape(len(counts), -1))
    )


def _entropies(counts: Array) -> Array:
    """Of rows of counts [D, …], nats [D]."""
    shares = counts / counts.sum(1, keepdims=True)
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)
