"""The polynomial kernel k(x, y) = (x·y / D + 1)³ between sets of features, tile by tile: no
matrix of all pairs."""

from collections.abc import Iterator

import numpy as np

from facefactory.metrics import Array

ROWS = 2048  # of a tile


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, ROWS):
        yield slice(start, min(start + ROWS, count))


def _tile(first: Array, second: Array) -> Array:
    tile = first @ second.T
    tile /= first.shape[1]
    tile += 1
    return tile * tile * tile


def diagonal(features: Array) -> Array:
    """k(x, x) of each row, [N]."""
    return ((features**2).sum(1) / features.shape[1] + 1) ** 3


def between(first: Array, second: Array, of_first: Array, of_second: Array) -> tuple[Array, Array]:
    """K [N, M] times weights of the second set [M, p], and Kᵀ times those of the first [N, p]."""
    forth = np.zeros((len(first), of_second.shape[1]))
    back = np.zeros((len(second), of_first.shape[1]))
    for rows in _parts(len(first)):
        for columns in _parts(len(second)):
            tile = _tile(first[rows], second[columns])
            forth[rows] += tile @ of_second[columns]
            back[columns] += tile.T @ of_first[rows]
    return forth, back


def within(features: Array, weights: Array) -> Array:
    """K [N, N] without its diagonal times weights [N, p]; each pair is computed once."""
    product = -diagonal(features)[:, None] * weights
    parts = list(_parts(len(features)))
    for number, rows in enumerate(parts):
        for columns in parts[number:]:
            tile = _tile(features[rows], features[columns])
            product[rows] += tile @ weights[columns]
            if columns != rows:
                product[columns] += tile.T @ weights[rows]
    return product
