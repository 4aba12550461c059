"""A pattern of single pixels, as transposed convolutions leave it; amounts are its height in grey levels (of 255)."""

import torch

from facefactory.evaluation.distortions import Faces

AMOUNTS = (5, 9, 14, 22, 34, 50)
MARK = None


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Every face with every other pixel brighter, the rest darker."""
    height, width = faces.images.shape[1:3]
    odd = (torch.arange(height)[:, None] + torch.arange(width)) % 2
    pattern = amount * (2 * odd - 1)
    return (faces.images + pattern[:, :, None]).round().clamp(0, 255).to(torch.uint8)
