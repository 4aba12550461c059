"""What is added to a player's loss: one equation a file. This file is torch-free.

A term file defines `class Component(Term)`; its keyword-only arguments are its options. One that remembers something
is `class Component(nn.Module, Term)`: its buffers and networks are part of every checkpoint. Its positional arguments, if it
has such, are the `Facts` of the data and the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from facefactory.objectives import Batch
    from facefactory.objectives.critics import Seen


class Term(Protocol):
    """A regulariser of one of the two players, from what the discriminator said already."""

    trains: Literal["discriminator", "generator", "both"]
    needs: tuple[
        str, ...
    ] = ()  # what a model must have, and not empty, beside what its objective needs
    differentiates: tuple[
        str, ...
    ] = ()  # images by which it takes derivatives: real and fake of `Seen`, or its own
    reads: bool = False  # whether it takes `Seen.features`
    learns: tuple[str, ...] = ()  # networks of its own that learn with the discriminator
    interval: int = 1  # lazy: in every so many iterations, with so many times its weight (Karras et al. 2020, §3.1)

    def weight(self, kimg: float) -> float:
        """Its weight in the loss at a clock [thousands of images]."""
        ...

    def __call__(self, seen: Seen, model: Any, batch: Batch) -> Tensor:
        """Its value of each image, [b]."""
        ...

    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None:
        """Once an iteration, on all ranks: move buffers by what it saw; `total` sums over ranks."""
