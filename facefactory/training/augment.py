"""Differentiable augmentation (Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from facefactory import UserError


def brightness(images: Tensor, u: Tensor) -> Tensor:
    """Shift all pixels by -0.5…0.5."""
    return images + (u[:, 0] - 0.5).view(-1, 1, 1, 1)


def contrast(images: Tensor, u: Tensor) -> Tensor:
    """Scale the distance to the image's mean by 0.5…1.5."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (u[:, 0] + 0.5).view(-1, 1, 1, 1)


def saturation(images: Tensor, u: Tensor) -> Tensor:
    """Scale the distance to the gray of each pixel by 0…2."""
    gray = images.mean(dim=1, keepdim=True)
    return gray + (images - gray) * (u[:, 0] * 2).view(-1, 1, 1, 1)


def translation(images: Tensor, u: Tensor) -> Tensor:
    """Shift by up to an eighth of the side, filled with middle gray."""
    count, _, height, width = images.shape
    reach_y, reach_x = max(1, height // 8), max(1, width // 8)
    shift_y = (u[:, 0] * (2 * reach_y + 1)).floor().long()
    shift_x = (u[:, 1] * (2 * reach_x + 1)).floor().long()
    padded = F.pad(images, (reach_x, reach_x, reach_y, reach_y)).permute(0, 2, 3, 1)
    rows = (shift_y[:, None] + torch.arange(height, device=images.device)).clamp(max=height + 2 * reach_y - 1)
    columns = (shift_x[:, None] + torch.arange(width, device=images.device)).clamp(max=width + 2 * reach_x - 1)
    number = torch.arange(count, device=images.device)
    return padded[number[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor, u: Tensor) -> Tensor:
    """Blank a square of half the side."""
    height, width = images.shape[2:]
    y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    inside_y = (y - u[:, :1] * height).abs() < height / 4
    inside_x = (x - u[:, 1:2] * width).abs() < width / 4
    return images * (~(inside_y[:, :, None] & inside_x[:, None, :]))[:, None]


KINDS = {kind.__name__: kind for kind in (brightness, contrast, saturation, translation, cutout)}


def check(kinds: list[str]) -> None:
    """Raise UserError for an augmentation that does not exist."""
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"training.augment has {kind!r}; allowed are {', '.join(KINDS)} (or [] for none).")


def augment(images: Tensor, kinds: list[str], uniform: Callable[[str, int], Tensor], purpose: str) -> Tensor:
    """Apply the kinds in order to images [N, C, H, W] in -1…1, with draws `uniform(purpose, 2)` [N, 2]."""
    for kind in kinds:
        images = KINDS[kind](images, uniform(f"{purpose}/{kind}", 2))
    return images
