"""Disentanglement, completeness, informativeness (Eastwood & Williams, ICLR 2018, §2), by boosted trees on histograms.

Trees see what a line does not: a dimension that tells of a factor at both its ends. So do they see binary factors that are mixed in every
dimension, by the clusters that they make there, and such codes score high: `dci` beside it does not. Least squares boosting (Friedman, Annals of
Statistics 2001) of trees that split at the edges of bins (Ke et al., LightGBM, NeurIPS 2017, alg. 1); a dimension's importance is the
share of the squares that its splits take away. Informativeness is the share of variance that is predicted of faces left out.
"""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.codes._factors import Classes, needs
from facefactory.metrics.codes._importance import summarised, targets

SCORES = {
    "disentanglement_trees": "higher",
    "completeness_trees": "higher",
    "informativeness_trees": "higher",
}
FACES = 4000  # the first of them
BINS = 32  # with as many faces in each
TREES = 30
DEPTH = 3
RATE = 0.3
HELD_OUT = 3  # each third face tells how well the others predict


def score(codes: Array, factors: Array) -> dict[str, float]:
    """0…1 each, as those of `dci`.

    Raises:
        ValueError: fewer than 20 faces, 2 dimensions or 2 factors that vary.
    """
    varying = factors[:, np.nanstd(factors, 0) > 0]
    needs("dci_trees", codes, varying, dimensions=2, count=2)
    bins = ranked(codes[:FACES])
    importance = np.zeros((codes.shape[1], varying.shape[1]))
    informed = np.zeros(varying.shape[1])
    for number, factor in enumerate(varying[:FACES].T):
        known = np.isfinite(factor)
        if known.any():
            found = predict(bins[known], targets(factor[known]))
            importance[:, number], informed[number] = found
    found_scores = summarised(importance, informed)
    return {f"{name}_trees": value for name, value in found_scores.items()}


def ranked(codes: Array) -> Classes:
    """Codes [n, D] as bins with as many faces in each [n, D]."""
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    columns = []
    for code in codes.T:
        columns.append(np.searchsorted(np.quantile(code, inner), code, side="right"))
    return np.stack(columns, 1)


def predict(bins: Classes, wanted: Array) -> tuple[Array, float]:
    """(share of each dimension in what is explained [D], share of the variance of faces left out that is predicted)."""
    held_out = np.arange(len(bins)) % HELD_OUT == 0
    taken = np.zeros(bins.shape[1])
    missed = 0.0
    spread = 0.0
    for column in wanted.T:
        mean = column[~held_out].mean()
        guess, squares = boosted(bins, column - mean, ~held_out)
        taken += squares
        missed += np.square(column - mean - guess)[held_out].sum()
        spread += np.square(column - mean)[held_out].sum()
    informed = 1 - missed / max(spread, 1e-12)
    return taken / max(taken.sum(), 1e-12), float(np.clip(informed, 0, 1))


def boosted(bins: Classes, wanted: Array, fitted: np.ndarray) -> tuple[Array, Array]:
    """(prediction [n], squares taken away by splits on each dimension [D]) of trees fitted to some of the faces."""
    columns = bins.shape[1]
    places = bins[fitted] + BINS * np.arange(columns)
    own = wanted[fitted].astype(np.float64)
    guess = np.zeros(len(bins))
    squares = np.zeros(columns)
    for _ in range(TREES):
        leaf = np.zeros(len(bins), np.int64)
        for level in range(DEPTH):
            feature, edge, gain = _splits(places, leaf[fitted], own, 2**level, columns)
            np.add.at(squares, feature, gain)
            beyond = bins[np.arange(len(bins)), feature[leaf]] > edge[leaf]
            leaf = 2 * leaf + beyond
        sums = np.bincount(leaf[fitted], own, 2**DEPTH)
        counts = np.bincount(leaf[fitted], minlength=2**DEPTH)
        step = RATE * sums / np.maximum(counts, 1)
        guess += step[leaf]
        own = own - step[leaf[fitted]]
    return guess, squares


def _splits(
    places: Classes, node: Classes, own: Array, nodes: int, columns: int
) -> tuple[Classes, Classes, Array]:
    """(dimension, last bin on its left, squares taken away) of the best split of each node."""
    flat = (node[:, None] * (columns * BINS) + places).ravel()
    shape = (nodes, columns, BINS)
    size = nodes * columns * BINS
    sums = np.bincount(flat, np.repeat(own, columns), size).reshape(shape).cumsum(2)
    counts = np.bincount(flat, minlength=size).reshape(shape).cumsum(2)

    # squares of both sides' means, less those of the whole
    whole = sums[:, :, -1:]
    total = counts[:, :, -1:]
    right = total - counts
    both = np.square(sums) / np.maximum(counts, 1) + np.square(whole - sums) / np.maximum(right, 1)
    gain = both - np.square(whole) / np.maximum(total, 1)
    gain = np.where((counts > 0) & (right > 0), gain, 0).reshape(nodes, -1)
    best = gain.argmax(1)
    return best // BINS, best % BINS, gain[np.arange(nodes), best]
