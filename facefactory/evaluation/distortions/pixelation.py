"""Blocks of one colour; amounts are the share of the rows and columns that is lost."""

import torch
from torch.nn import functional as F

from facefactory.evaluation.distortions import Faces

AMOUNTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
MARK = None


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Every face as a mosaic."""
    maps = faces.images.permute(0, 3, 1, 2).float()
    small = [max(2, round(side * (1 - amount))) for side in maps.shape[2:]]
    blocks = F.interpolate(F.interpolate(maps, small, mode="area"), maps.shape[2:], mode="nearest")
    return blocks.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
