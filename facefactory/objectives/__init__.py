"""What is minimised. An objective names its phases and gives each phase's loss; the training loop knows no more.

An objective file defines `class Component(nn.Module, Objective)`: its keyword-only arguments are its
options, its positional arguments, as far as it has such, the `Facts` of the data and the model that
is trained. Buffers and networks of its own are part of every checkpoint. This file is torch-free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from facefactory.draws import Draws


@dataclass(frozen=True)
class Phase:
    """An optimiser step: which networks it trains (the others are frozen), and in which iterations.

    A network is a dotted path in the model (`.` = all of it), or `objective.<path>` of the
    objective's own. A network belongs to one phase.
    """

    name: str
    modules: tuple[str, ...]
    interval: int = 1  # runs in iterations 0, interval, 2·interval, …


@dataclass(frozen=True)
class Batch:
    """What a loss sees: a slice of the global batch and its random draws."""

    images: Tensor  # [b, C, H, W] in -1…1
    labels: dict[str, Tensor]  # name -> [b] int64 (-1 = missing) or float32 (NaN = missing)
    c: Tensor  # [b, columns] the labels that the model is conditioned on, as one vector
    wrong: Tensor  # [b, columns] the same of the image before, in the global batch
    iteration: int
    kimg: float  # the clock, thousands of images
    draws: Draws  # of this slice: `draws.normal(purpose, n)` is [b, n]
    # (images, purpose) -> augmented images of this slice; p=…: each kind with this probability
    augment: Callable[..., Tensor]
    set_size: int = 1  # images that the training draws from


class Objective(Protocol):
    """A set of phases and their losses."""

    phases: tuple[Phase, ...]
    needs: tuple[str, ...]  # what a model must have, and not empty, to be trained by it
    averaged: tuple[str, ...] = (".",)  # networks of the model whose weights are averaged
    uses_labels: bool = (
        False  # whether it reads `batch.labels`; a change of them makes what it trained stale
    )

    notes: tuple[str, ...] = ()  # sentences, said where a training begins

    def loss(self, phase: str, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The phase's loss (a scalar, mean over the slice) and scalars worth a curve."""
        ...

    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None:
        """Once an iteration, on all ranks: adapt buffers from what the phases saw; `total` sums over ranks."""

    def collapsed(self, scalars: dict[str, float]) -> list[str]:
        """Sentences on a training that is over, by the means of its scalars over a while; `kimg`: the clock.

        What `training.on_collapse` acts on.
        """
        return []

    def health(self, scalars: dict[str, float]) -> list[str]:
        """Sentences on what else is wrong; none where nothing is."""
        return []
