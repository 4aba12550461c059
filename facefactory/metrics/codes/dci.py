"""Disentanglement, completeness, informativeness (Eastwood & Williams, ICLR 2018, §2), by lasso regressions.

A dimension's importance for a factor is the size of its coefficient, at the strongest lasso that predicts faces left out as well
as the best, but for a standard error (Breiman et al. 1984, §3.4.3); numbers are predicted as they are, and each of more than
two classes by itself. Informativeness is the share of variance that is predicted of faces left out (the paper has the error).
Linear: what a dimension tells by more than a line does not count.
"""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.codes._factors import needs
from facefactory.metrics.codes._importance import summarised, targets

SCORES = {"disentanglement": "higher", "completeness": "higher", "informativeness": "higher"}
STRENGTHS = np.logspace(-0.5, -3.5, 13)  # of the lasso, in deviations of the factor
SWEEPS = 100
CLOSE = 1e-5  # a sweep that moves no coefficient further is the last
HELD_OUT = 3  # each third face tells how well the others predict


def score(codes: Array, factors: Array) -> dict[str, float]:
    """0…1 each; disentanglement is weighed by how much dimensions matter, the others are means over factors.

    Raises:
        ValueError: fewer than 20 faces, 2 dimensions or 2 factors that vary.
    """
    varying = factors[:, np.nanstd(factors, 0) > 0]
    needs("dci", codes, varying, dimensions=2, count=2)
    importance = np.zeros((codes.shape[1], varying.shape[1]))
    informed = np.zeros(varying.shape[1])
    known = np.isfinite(varying)
    for rows in np.unique(known, axis=1).T:  # factors that the same faces have go together
        members = np.flatnonzero((known == rows[:, None]).all(0))
        found = predict(codes[rows], varying[np.ix_(rows, members)])
        importance[:, members], informed[members] = found

    return summarised(importance, informed)


def predict(codes: Array, factors: Array) -> tuple[Array, Array]:
    """(importance of each dimension for each factor [D, F], share of the variance of faces left out that is predicted [F])."""
    inputs = _standardised(codes)
    columns = [targets(factor) for factor in factors.T]
    outputs = _standardised(np.hstack(columns))
    owners = np.repeat(np.arange(len(columns)), [column.shape[1] for column in columns])

    # how far each strength misses, by face left out and column
    held_out = np.arange(len(codes)) % HELD_OUT == 0
    wanted = outputs[held_out]
    paths = lasso(inputs[~held_out], outputs[~held_out])
    misses = np.stack([np.square(wanted - inputs[held_out] @ path) for path in paths])
    spread = np.square(wanted - outputs[~held_out].mean(0))

    # for each factor the strongest one that predicts as well as the best, but for a standard error
    importance = np.zeros((codes.shape[1], len(columns)))
    informed = np.zeros(len(columns))
    for number in range(len(columns)):
        mine = owners == number
        by_face = misses[:, :, mine].mean(2)
        errors = by_face.mean(1)
        best = int(np.argmin(errors))
        chance = by_face[best].std() / np.sqrt(held_out.sum())
        chosen = int(np.flatnonzero(errors <= errors[best] + chance)[0])
        importance[:, number] = np.abs(paths[chosen][:, mine]).mean(1)
        informed[number] = 1 - errors[chosen] / max(spread[:, mine].mean(), 1e-12)
    return importance, informed.clip(0, 1)


def _standardised(columns: Array) -> Array:
    deviation = columns.std(0)
    return (columns - columns.mean(0)) / np.where(deviation > 1e-9, deviation, np.inf)


def lasso(inputs: Array, targets: Array) -> list[Array]:
    """Coefficients [D, T] at each of STRENGTHS, by coordinate descent (Friedman et al., 2010, §2.2), each from the one before."""
    products = inputs.T @ inputs / len(inputs)
    wanted = inputs.T @ targets / len(inputs)
    own = products.diagonal()
    found = np.zeros_like(wanted)
    paths = []
    for strength in STRENGTHS:
        for _ in range(SWEEPS):
            before = found.copy()
            for dimension in np.flatnonzero(own > 0):
                rest = wanted[dimension] - products[dimension] @ found
                pull = rest + own[dimension] * found[dimension]
                shrunk = np.maximum(np.abs(pull) - strength, 0)
                found[dimension] = np.sign(pull) * shrunk / own[dimension]
            if np.abs(found - before).max() < CLOSE:
                break
        paths.append(found.copy())
    return paths
