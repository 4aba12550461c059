"""Fréchet distance of two normals fitted to features (Dowson & Landau 1982, eq. 4; as FID: Heusel et al. 2017, eq. 6).

‖μ₁ - μ₂‖² + Tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), covariances with N - 1. The estimate is biased upwards for small sets.
"""

import numpy as np
import scipy.linalg

from facefactory.metrics import Moments

STATISTICS = "moments"
SCORES = {"fd": "lower"}


def score(real: Moments, fake: Moments) -> dict[str, float]:
    """0 for equal means and covariances; in squared units of the features."""
    difference = real.mean - fake.mean
    values, vectors = scipy.linalg.eigh(real.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    # Tr (Σ₁Σ₂)^½ by the eigenvalues of Σ₁^½ Σ₂ Σ₁^½: symmetric, so no complex parts appear
    cross = np.sqrt(scipy.linalg.eigvalsh(root @ fake.covariance @ root).clip(min=0)).sum()
    spread = np.trace(real.covariance) + np.trace(fake.covariance)
    return {"fd": float(difference @ difference + spread - 2 * cross)}
