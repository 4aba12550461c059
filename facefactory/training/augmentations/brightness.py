"""Brightness: all pixels of an image are shifted by one number."""

from torch import Tensor


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Shift by -0.5…0.5."""
    return images + (u[:, :1, None, None] - 0.5)
