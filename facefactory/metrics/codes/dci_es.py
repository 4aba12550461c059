"""Explicitness and size (Eastwood et al., DCI-ES, ICLR 2023, §3): how much capacity a probe needs, and how many dimensions there are.

Explicitness is 1 less the area between the losses of probes of growing capacity and the lowest of them, as a share of that of a loss that
falls in a straight line from guessing: 1 where a line predicts as well as anything, 0 for such a loss. Probes are ridge
regressions on codes and on 0, 8, 16 … random ReLU features of them, equal steps of capacity; a loss is the share of
variance of faces left out that is not predicted. Size is the number of factors by that of dimensions.
"""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.codes._factors import needs
from facefactory.metrics.codes.dci_trees import FACES, HELD_OUT, targets

SCORES = {"explicitness": "higher", "size": "higher"}
FEATURES = (0, 8, 16, 32, 64, 128)
RIDGE = 1e-3
LEAST = 0.02  # of the variance; a factor of which no probe predicts more is not explicit at all


def score(codes: Array, factors: Array) -> dict[str, float]:
    """Explicitness -1…1, the mean over factors; size above 0.

    Raises:
        ValueError: fewer than 20 faces, 2 dimensions or 1 factor that varies.
    """
    varying = factors[:, np.nanstd(factors, 0) > 0]
    needs("dci_es", codes, varying, dimensions=2)
    deviation = codes.std(0)
    standard = (codes - codes.mean(0)) / np.where(deviation > 1e-9, deviation, np.inf)
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(codes.shape[1], FEATURES[-1])) / np.sqrt(codes.shape[1])
    bent = np.maximum(standard[:FACES] @ mixing + rng.normal(size=FEATURES[-1]), 0)

    explicit = []
    for factor in varying[:FACES].T:
        known = np.isfinite(factor)
        losses = []
        for count in FEATURES:
            inputs = np.hstack([standard[:FACES][known], bent[known, :count]])
            losses.append(loss(inputs, targets(factor[known])))
        explicit.append(_explicitness(np.array(losses)))
    size = varying.shape[1] / codes.shape[1]
    return {"explicitness": float(np.mean(explicit)), "size": size}


def loss(inputs: Array, wanted: Array) -> float:
    """Share of the variance of each third face's columns [n, T] that a ridge regression on the others misses."""
    held_out = np.arange(len(inputs)) % HELD_OUT == 0
    mean = inputs[~held_out].mean(0)
    centre = wanted[~held_out].mean(0)
    fitted = inputs[~held_out] - mean
    products = fitted.T @ fitted / len(fitted) + RIDGE * np.eye(inputs.shape[1])
    weights = np.linalg.solve(products, fitted.T @ (wanted[~held_out] - centre) / len(fitted))
    guess = (inputs[held_out] - mean) @ weights
    spread = np.square(wanted[held_out] - centre).sum()
    return float(np.square(wanted[held_out] - centre - guess).sum() / max(spread, 1e-12))


def _explicitness(losses: Array) -> float:
    lowest = losses.min()
    if 1 - lowest < LEAST:
        return 0.0
    area = float(np.trapezoid(losses - lowest)) / (len(losses) - 1)
    return float(np.clip(1 - area / (0.5 * (1 - lowest)), -1, 1))
