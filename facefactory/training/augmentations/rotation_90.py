"""Quarter turns: by 0, 1, 2 or 3, each as likely; images that are not square make half turns alone."""

from torch import Tensor


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Turn by as many quarters as the draw has passed."""
    square = images.shape[2] == images.shape[3]
    passed = (u[:, :1, None, None] * 4).floor()
    turned = images
    for quarters in (1, 2, 3) if square else (2,):
        turned = images.rot90(quarters, (2, 3)).where(passed == quarters, turned)
    return turned
