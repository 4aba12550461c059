"""Rotation by any angle around the middle (Karras et al., NeurIPS 2020, §B)."""

import math

import torch
from torch import Tensor

from facefactory.training.augmentations._resampling import resampled


def apply(images: Tensor, u: Tensor) -> Tensor:
    """Turn counter-clockwise by -180…180 degrees."""
    angle = (2 * u[:, 0] - 1) * math.pi
    cos = angle.cos()
    sin = angle.sin()
    back = torch.stack([cos, sin, -sin, cos], 1).unflatten(1, (2, 2))
    return resampled(images, back)
