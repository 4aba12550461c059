"""Translation: the image is moved, and filled with middle gray."""

import torch
from torch import Tensor
from torch.nn import functional as F


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Move by up to an eighth of the height and of the width."""
    height, width = images.shape[2:]
    down = max(1, height // 8)
    right = max(1, width // 8)
    padded = F.pad(images, [right, right, down, down]).permute(0, 2, 3, 1)

    number = torch.arange(len(images), device=images.device)[:, None, None]
    rows = _lines(u[:, 0], down, height)[:, :, None]
    columns = _lines(u[:, 1], right, width)[:, None, :]
    return padded[number, rows, columns].permute(0, 3, 1, 2)


def _lines(u: Tensor, reach: int, side: int) -> Tensor:
    """Lines of the padded image that are shown, [N, side]."""
    start = (u * (2 * reach + 1)).floor().long()
    return start[:, None] + torch.arange(side, device=u.device)
