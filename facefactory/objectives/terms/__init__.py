"""What is added to a player's loss: one equation a file. This file is torch-free.

A term file defines `class Component(Term)`; its keyword-only arguments are its options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from facefactory.objectives import Batch
    from facefactory.objectives.critics import Seen


class Term(Protocol):
    """A regulariser of one of the two players, from what the discriminator said already."""

    trains: Literal["discriminator", "generator"]
    needs: tuple[
        str, ...
    ] = ()  # what a model must have, and not empty, beside what its objective needs
    differentiates: tuple[
        str, ...
    ] = ()  # images of `Seen` by which it takes derivatives: real, fake
    interval: int = 1  # lazy: in every so many iterations, with so many times its weight (Karras et al. 2020, §3.1)

    def weight(self, kimg: float) -> float:
        """Its weight in the loss at a clock [thousands of images]."""
        ...

    def __call__(self, seen: Seen, model: Any, batch: Batch) -> Tensor:
        """Its value of each image, [b]."""
        ...
