"""Scale: the whole image grows or shrinks around its middle (Karras et al., NeurIPS 2020, §B)."""

from torch import Tensor

from facefactory.training.augmentations._resampling import normal, resized

SPREAD = 0.2  # standard deviation, octaves


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Scale by 2^N(0, 0.2²)."""
    times = (normal(u[:, 0]) * SPREAD).exp2()
    return resized(images, times, times)
