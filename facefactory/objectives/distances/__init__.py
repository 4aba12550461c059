"""How unlike decoded images are to those that were encoded, beside the likelihood: one distance a file. This file is torch-free.

A distance file defines `class Component(Distance)`: its one positional argument, if it has one, are the `Facts` of
the data, its keyword-only arguments are its options. It has nothing that is trained. Nothing is added unless it is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Distance(Protocol):
    """A price on reconstructions that pixels alone do not tell."""

    def weight(self, kimg: float) -> float:
        """Its weight in the loss at a clock [thousands of images]."""
        ...

    def __call__(self, decoded: Tensor, images: Tensor) -> Tensor:
        """Its value of each pair of images [b, C, H, W] in -1…1: [b] nats, summed like those of pixels, but for a constant."""
        ...


def weighed(
    distances: Mapping[str, Distance], decoded: Tensor, images: Tensor, kimg: float
) -> dict[str, Tensor]:
    """What each adds to a loss, the mean over images, by the name that its curve has."""
    return {
        f"{name}_nats": distance.weight(kimg) * distance(decoded, images).mean()
        for name, distance in distances.items()
    }
