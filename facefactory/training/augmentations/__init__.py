"""Differentiable augmentation (Zhao et al., 2020: DiffAugment; Karras et al., NeurIPS 2020: ADA).

One kind a file. A file defines `apply(images, u)`: images [N, C, H, W] in -1…1 and draws `u` [N, 2]
in 0…1 -> images of the same shape. This file is torch-free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from facefactory import UserError, registry

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "training.augmentations"


def check(kinds: Sequence[str]) -> None:
    """Raise UserError for an augmentation that does not exist."""
    known = registry.names(PACKAGE)
    for kind in kinds:
        if kind not in known:
            allowed = ", ".join(known)
            raise UserError(
                f"training.augment has {kind!r}; allowed are {allowed} (or [] for none)."
            )


def augment(
    images: Tensor,
    purpose: str,
    kinds: Sequence[str],
    uniform: Callable[[str, int], Tensor],
    p: float | Tensor = 1.0,
) -> Tensor:
    """Apply the kinds in order to images [N, C, H, W] in -1…1, with draws `uniform(purpose, 2)` [N, 2].

    Each kind comes to each image with probability `p`, which may be a number on the images' device.
    """
    always = isinstance(p, float) and p == 1
    for kind in kinds:
        applied = registry.module(PACKAGE, kind).apply(images, uniform(f"{purpose}/{kind}", 2))
        if not always:
            chosen = uniform(f"{purpose}/{kind}/p", 1) < p
            applied = applied.where(chosen[:, :, None, None], images)
        images = applied
    return images
