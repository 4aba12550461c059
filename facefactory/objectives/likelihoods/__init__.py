"""How well decoded images explain those that were encoded: one -log p(x|z) a file. This file is torch-free.

A likelihood file defines `class Component(nn.Module, Likelihood)`: its one positional argument, if it
has one, are the `Facts` of the data, its keyword-only arguments are its options. Parameters of its own
are trained with the VAE, as the network `objective.likelihood`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Likelihood(Protocol):
    """The density, or the probability, of pixels around what the decoder says."""

    def nats(self, decoded: Tensor, images: Tensor) -> Tensor:
        """-log p of each pixel, [b, C, H, W] each, both in -1…1."""
        ...

    def scalars(self) -> dict[str, Tensor]:
        """What is worth a curve, e.g. a deviation that is learned."""
        return {}

    def health(self, scalars: dict[str, float]) -> list[str]:
        """Sentences on what is wrong with these scalars; none where nothing is."""
        return []
