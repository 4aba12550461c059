"""Structural similarity (Wang, Bovik, Sheikh & Simoncelli, IEEE Transactions on Image Processing
2004, eq. 13).

Means, variances and covariance under a Gaussian window of 11 × 11 pixels with σ = 1.5; C₁ =
(0.01·255)², C₂ = (0.03·255)²; the mean over all places where the window lies inside the image,
and over channels (torchmetrics adds reflected borders). It forgives a change of brightness and
contrast, and sees blur.
"""

import numpy as np
from scipy.ndimage import correlate1d

from facefactory.metrics import Array
from facefactory.metrics.images import Images, pairs

SCORES = {"ssim": "higher"}
WINDOW = 11
SIGMA = 1.5
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2


def _local_mean(values: Array) -> Array:
    """Weighted means [N, H - 10, W - 10, C] of values [N, H, W, C]."""
    reach = WINDOW // 2
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * SIGMA**2))
    weights /= weights.sum()
    smooth = correlate1d(correlate1d(values, weights, axis=1), weights, axis=2)
    return smooth[:, reach:-reach, reach:-reach]


def score(images: Images, reconstructions: Images) -> dict[str, float]:
    """1 for equal stacks, about 0 for unrelated ones.

    Raises:
        ValueError: images smaller than the window, too.
    """
    parts = pairs(images, reconstructions)
    if min(images.shape[1:3]) < WINDOW:
        raise ValueError(
            f"ssim needs images of at least {WINDOW} x {WINDOW} pixels; "
            f"these have {images.shape[1:3]}"
        )
    total = 0.0
    for first, second in parts:
        x = first.astype(np.float64)
        y = second.astype(np.float64)
        mean_x = _local_mean(x)
        mean_y = _local_mean(y)
        variances = _local_mean(x * x) - mean_x**2 + _local_mean(y * y) - mean_y**2
        covariance = _local_mean(x * y) - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
        structure = (2 * covariance + C2) / (variances + C2)
        total += float((luminance * structure).mean(axis=(1, 2, 3)).sum())
    return {"ssim": total / len(images)}
