"""Anisotropic scale: the image becomes wider by as much as it becomes lower (Karras et al., NeurIPS 2020, §B)."""

from torch import Tensor

from facefactory.training.augmentations._resampling import normal, resized

SPREAD = 0.2  # standard deviation, octaves


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Scale the width by 2^N(0, 0.2²), and the height by its inverse."""
    times = (normal(u[:, 0]) * SPREAD).exp2()
    return resized(images, 1 / times, times)
