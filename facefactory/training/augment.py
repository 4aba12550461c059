"""Differentiable augmentation (Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020).

Each kind takes square images [N, C, S, S] in -1…1 and draws `u` [N, 2] in 0…1.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from facefactory import UserError


def brightness(images: Tensor, u: Tensor) -> Tensor:
    """Shift all pixels by -0.5…0.5."""
    return images + (u[:, :1, None, None] - 0.5)


def contrast(images: Tensor, u: Tensor) -> Tensor:
    """Scale the distance to the image's mean by 0.5…1.5."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (u[:, :1, None, None] + 0.5)


def saturation(images: Tensor, u: Tensor) -> Tensor:
    """Scale the distance to the gray of each pixel by 0…2."""
    gray = images.mean(dim=1, keepdim=True)
    return gray + (images - gray) * (u[:, :1, None, None] * 2)


def translation(images: Tensor, u: Tensor) -> Tensor:
    """Shift by up to an eighth of the side, filled with middle gray."""
    side, device = images.shape[2], images.device
    reach = max(1, side // 8)
    start = (u * (2 * reach + 1)).floor().long()
    lines = start[:, :, None] + torch.arange(side, device=device)  # [N, 2, S]: rows and columns of the padded images
    padded = F.pad(images, [reach] * 4).permute(0, 2, 3, 1)
    number = torch.arange(len(images), device=device)[:, None, None]
    return padded[number, lines[:, 0, :, None], lines[:, 1, None]].permute(0, 3, 1, 2)


def cutout(images: Tensor, u: Tensor) -> Tensor:
    """Blank a square of half the side."""
    side = images.shape[2]
    inside = (torch.arange(side, device=images.device) - u[:, :, None] * side).abs() < side / 4  # [N, 2, S]
    return images * ~(inside[:, :1, :, None] & inside[:, 1:, None])


KINDS = {kind.__name__: kind for kind in (brightness, contrast, saturation, translation, cutout)}


def check(kinds: list[str]) -> None:
    """Raise UserError for an augmentation that does not exist."""
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"training.augment has {kind!r}; allowed are {', '.join(KINDS)} (or [] for none).")


def augment(images: Tensor, purpose: str, kinds: list[str], uniform: Callable[[str, int], Tensor]) -> Tensor:
    """Apply the kinds in order to images [N, C, S, S] in -1…1, with draws `uniform(purpose, 2)` [N, 2]."""
    for kind in kinds:
        images = KINDS[kind](images, uniform(f"{purpose}/{kind}", 2))
    return images
