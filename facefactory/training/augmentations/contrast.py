"""Contrast: the distance of all pixels to the image's mean is scaled."""

from torch import Tensor


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Scale by 0.5…1.5."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (u[:, :1, None, None] + 0.5)
