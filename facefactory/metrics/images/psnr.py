"""Peak signal-to-noise ratio: 10 log₁₀ (255² / mean squared error over all pixels of all images),
in dB.

Blind to structure: a blurred face scores better than a sharp one moved by a pixel.
"""

import numpy as np

from facefactory.metrics.images import Images, pairs

SCORES = {"psnr": "higher"}


def score(images: Images, reconstructions: Images) -> dict[str, float]:
    """Infinite for equal stacks."""
    total = 0.0
    for first, second in pairs(images, reconstructions):
        total += float(((first.astype(np.float64) - second) ** 2).sum())
    if total == 0:
        return {"psnr": float("inf")}
    return {"psnr": float(10 * np.log10(255**2 * images.size / total))}
