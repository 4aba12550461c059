"""How two players judge logits: one pair of losses a file. This file is torch-free.

A critic file defines `class Component(Critic)` with its equation and paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """What a phase drew, and what the discriminator said of it, so that no term asks it again."""

    real: Tensor  # [b, C, H, W] in -1…1, before augmentation
    fake: Tensor  # [b, C, H, W]
    real_logits: Tensor  # [b]; in the generator's phase only for critics that pair, else empty
    fake_logits: Tensor  # [b]
    # [b, D] the discriminator's, of the images that the phase learns from: real ones in its own, else generated ones; None unless a
    # term reads them
    features: Tensor | None = None


class Critic(Protocol):
    """The losses of two players."""

    pairs: bool = False  # whether the generator's loss needs logits of real images too

    def discriminator(self, seen: Seen) -> Tensor: ...  # [b]

    def generator(self, seen: Seen) -> Tensor: ...  # [b]
