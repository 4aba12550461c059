"""Mirror: left becomes right in half of the images."""

from torch import Tensor


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Mirror those with a draw below one half."""
    return images.flip(3).where(u[:, :1, None, None] < 0.5, images)
