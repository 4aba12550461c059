"""Gaussian blur; amounts are its standard deviation as a share of the shorter side, beside a third of a pixel (at 32: 0.5 to 3)."""

import torch
from torch.nn import functional as F

from facefactory.evaluation.distortions import Faces

AMOUNTS = (1 / 160, 1 / 64, 1 / 40, 1 / 26, 1 / 17, 1 / 12)
MARK = ("blur", 1 / 12)
LEAST = 1 / 3  # pixels: less changes no picture


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Images [n, H, W, C] uint8, blurred by `sigma` pixels, mirrored at the edge."""
    reach = min(max(1, round(3 * sigma)), min(images.shape[1:3]) - 1)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-(places**2) / (2 * sigma**2))
    weights /= weights.sum()
    maps = images.permute(0, 3, 1, 2).float()
    channels = maps.shape[1]
    maps = F.pad(maps, (reach, reach, reach, reach), mode="reflect")
    maps = F.conv2d(maps, weights.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
    maps = F.conv2d(maps, weights.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
    return maps.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def spoil(faces: Faces, amount: float) -> torch.Tensor:
    """Every face blurred."""
    return blurred(faces.images, LEAST + amount * min(faces.images.shape[1:3]))
