"""Shrunk and enlarged again; amounts are the share of the side that is lost."""

import torch
from torch.nn import functional as F

from facefactory.evaluation.distortions import Faces

AMOUNTS = (0.25, 0.4, 0.5, 0.6, 0.7, 0.8)
MARK = None


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Every face with fewer details, bicubic and antialiased both ways."""
    maps = faces.images.permute(0, 3, 1, 2).float()
    small = [max(2, round(side * (1 - amount))) for side in maps.shape[2:]]
    shrunk = F.interpolate(maps, small, mode="bicubic", antialias=True)
    maps = F.interpolate(shrunk, maps.shape[2:], mode="bicubic", antialias=True)
    return maps.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
