"""How likely each augmentation is applied to an image that the discriminator sees: one rule a file. This file is torch-free.

A strength file defines `class Component(Strength)`; its keyword-only arguments are its options. One that remembers
something is `class Component(nn.Module, Strength)`: its buffers are part of every checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Strength(Protocol):
    """The probability p of each augmentation, for each image."""

    def p(self, kimg: float) -> float | Tensor:
        """p in 0…1 at a clock [thousands of images]; a tensor stays on its device."""
        ...

    def see(self, real_logits: Tensor) -> None:
        """What the discriminator said of real images [b], augmented."""

    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None:
        """Once an iteration, on all ranks: move p by what was seen; `total` sums over ranks."""
