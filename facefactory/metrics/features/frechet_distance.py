"""Fréchet distance of two normals fitted to features (Dowson & Landau 1982, eq. 4; as FID: Heusel et al. 2017, eq. 6).

‖μ₁ - μ₂‖² + Tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), covariances with N - 1. The estimate is biased upwards for small sets.
"""

import numpy as np
import scipy.linalg

from facefactory.metrics import Array


def score(real: Array, fake: Array) -> float:
    """0 for equal means and covariances; in squared units of the features."""
    difference = real.mean(0) - fake.mean(0)
    cov_real, cov_fake = np.atleast_2d(np.cov(real, rowvar=False)), np.atleast_2d(np.cov(fake, rowvar=False))
    values, vectors = scipy.linalg.eigh(cov_real)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    # Tr (Σ₁Σ₂)^½ by the eigenvalues of Σ₁^½ Σ₂ Σ₁^½: symmetric, so no complex parts appear
    cross = np.sqrt(scipy.linalg.eigvalsh(root @ cov_fake @ root).clip(min=0)).sum()
    return float(difference @ difference + np.trace(cov_real) + np.trace(cov_fake) - 2 * cross)
