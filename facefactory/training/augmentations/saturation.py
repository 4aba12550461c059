"""Saturation: the distance of each pixel to its gray is scaled."""

from torch import Tensor


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Scale by 0…2."""
    gray = images.mean(dim=1, keepdim=True)
    return gray + (images - gray) * (u[:, :1, None, None] * 2)
