"""Translation by whole pixels; beyond the edges the image goes on as its mirror image (Karras et al., NeurIPS 2020, §B)."""

import torch
from torch import Tensor

from facefactory.training.augmentations._resampling import mirrored

REACH = 0.125  # of the height and of the width


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Move by up to an eighth of the height and of the width."""
    number = torch.arange(len(images), device=images.device)[:, None, None]
    lines = []
    for axis, side in enumerate(images.shape[2:]):
        move = ((2 * u[:, axis] - 1) * REACH * side).round()
        places = torch.arange(side, device=images.device) + move[:, None]
        lines.append(mirrored(places, side))
    rows, columns = lines
    moved = images.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)
