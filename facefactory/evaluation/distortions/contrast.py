"""Contrast taken away; amounts are the share of each value's distance to its image's mean that is lost."""

import torch

from facefactory.evaluation.distortions import Faces

AMOUNTS = (0.15, 0.3, 0.45, 0.6, 0.7, 0.8)
MARK = None


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Every face paler."""
    values = faces.images.float()
    mean = values.mean((1, 2), keepdim=True)
    pale = mean + (1 - amount) * (values - mean)
    return pale.round().clamp(0, 255).to(torch.uint8)
