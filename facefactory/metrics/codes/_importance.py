"""What the scores of DCI share: what is predicted of a factor, and how far importances lie on one place."""

import numpy as np

from facefactory.metrics import Array
from facefactory.metrics.codes._factors import is_number


def targets(factor: Array) -> Array:
    """A factor [n] as columns to predict [n, T]: itself, or its classes, where there are more than two."""
    several = len(np.unique(factor)) > 2 and not is_number(factor)
    columns = factor[:, None] == np.unique(factor) if several else factor[:, None]
    return columns.astype(np.float64)


def summarised(importance: Array, informed: Array) -> dict[str, float]:
    """Of importances [D, F] and what is predicted of each factor [F]: disentanglement is weighed by how much dimensions matter."""
    weights = importance.sum(1)
    disentangled = concentration(importance)
    complete = concentration(importance.T)
    return {
        "disentanglement": float((disentangled * weights).sum() / max(weights.sum(), 1e-12)),
        "completeness": float(complete.mean()),
        "informativeness": float(informed.mean()),
    }


def concentration(rows: Array) -> Array:
    """1 - entropy of each row's shares, in the base of their number; 0 for a row of zeros."""
    total = rows.sum(1, keepdims=True)
    shares = rows / np.where(total > 0, total, 1)
    logs = np.log(np.where(shares > 0, shares, 1))
    found = 1 + (shares * logs).sum(1) / np.log(rows.shape[1])
    return np.where(total[:, 0] > 0, found, 0.0)
