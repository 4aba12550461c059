"""Cutout: a rectangle of half the sides is blanked (DeVries & Taylor, 2017)."""

import torch
from torch import Tensor


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Blank it around a place that is drawn."""
    inside = []
    for axis, side in enumerate(images.shape[2:]):
        distance = torch.arange(side, device=images.device) - u[:, axis, None] * side
        inside.append(distance.abs() < side / 4)  # [N, side]
    rows, columns = inside
    return images * ~(rows[:, None, :, None] & columns[:, None, None, :])
