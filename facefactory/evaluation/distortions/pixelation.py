"""Blocks of one colour; amounts are the share of the rows and columns that is lost."""

import torch

from facefactory.evaluation.distortions import Faces

AMOUNTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
MARK = None


def _means(side: int, cells: int) -> torch.Tensor:
    """[side, side]: what makes of every pixel in a row the mean of its cell."""
    cell = torch.arange(side) * cells // side
    same = (cell[:, None] == cell).float()
    return same / same.sum(1, keepdim=True)


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Every face as a mosaic."""
    maps = faces.images.permute(0, 3, 1, 2).float()
    down, across = (_means(side, max(2, round(side * (1 - amount)))) for side in maps.shape[2:])
    blocks = down @ maps @ across.T
    return blocks.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
