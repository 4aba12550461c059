"""Fréchet distance of two normals fitted to features (Dowson & Landau 1982, eq. 4; as FID: Heusel
et al. 2017, eq. 6).

‖μ₁ - μ₂‖² + Tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½), covariances with N - 1. With Σ = F Fᵀ, Tr (Σ₁ Σ₂)^½ is the
sum of the singular values of F₁ᵀ F₂. F comes from Cholesky's decomposition with pivots, which has
as many columns as Σ has rank, so fewer images than features make it exact, and quicker.
Symmetric. The estimate is biased upwards, about as 1/N: compare equal sizes only, of 2 D images
and more. It sees means and covariances only, and is blind to copies of training images.

Of the sanity checks of Räisä et al. (ICML 2025) it fails "heavy tail".
"""

import numpy as np
import scipy.linalg

from facefactory.metrics import Array, Moments
from facefactory.metrics.features._neighbours import finite, needs

STATISTICS = "moments"
BY_CLASS = True
SCORES = {"fd": "lower"}


def factor(covariance: Array) -> Array:
    """F [D, rank] with F Fᵀ = covariance [D, D]."""
    # LAPACK reads columns first: the transpose of a symmetric matrix needs no copy
    packed, pivots, rank, _ = scipy.linalg.lapack.dpstrf(covariance.T, lower=1)
    order = np.argsort(pivots)
    return np.tril(packed)[order, :rank]


def overlap(first: Array, second: Array) -> float:
    """Tr (Σ₁ Σ₂)^½ from factors [D, rank]."""
    product = first.T @ second
    if min(product.shape) < len(first):
        return float(scipy.linalg.svdvals(product, overwrite_a=True, check_finite=False).sum())
    # of full rank: by eigenvalues of its square, in a third of the time
    squares = scipy.linalg.eigvalsh(product @ product.T, overwrite_a=True, check_finite=False)
    return float(np.sqrt(squares.clip(min=0)).sum())


def score(real: Moments, fake: Moments) -> dict[str, float]:
    """0 for equal means and covariances; in squared units of the features.

    Raises:
        ValueError: fewer than 2 images on a side.
    """
    needs("fd", real=(real.count, 2), fake=(fake.count, 2))
    finite(real.mean, fake.mean, real.covariance, fake.covariance)
    difference = real.mean - fake.mean
    spread = np.trace(real.covariance) + np.trace(fake.covariance)
    cross = overlap(factor(real.covariance), factor(fake.covariance))
    return {"fd": float(difference @ difference + spread - 2 * cross)}
