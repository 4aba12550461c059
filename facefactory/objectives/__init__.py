"""What is minimised. An objective names its phases and gives each phase's loss; the training loop knows no more.

An objective file defines `class Component`: its one positional argument is the label schema (name -> {kind, classes}),
its keyword-only arguments are its options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Phase:
    """An optimiser step: which sub-module of the model it trains, and in which iterations."""

    name: str
    module: str
    interval: int = 1  # runs in iterations 0, interval, 2·interval, …


@dataclass(frozen=True)
class Batch:
    """What a loss sees: a slice of the global batch and its random draws.

    images [b, C, H, W] in -1…1; labels name -> [b] int64 (-1 = missing) or float32; `normal(purpose, n)` -> [b, n] standard normal;
    `augment(images, purpose)` -> DiffAugment of any images of this slice.
    """

    images: Tensor
    labels: dict[str, Tensor]
    normal: Callable[[str, int], Tensor]
    augment: Callable[[Tensor, str], Tensor]


class Objective(Protocol):
    """A set of phases and their losses."""

    phases: tuple[Phase, ...]
    needs: tuple[str, ...]  # what a model must have to be trained by it
    uses_labels: bool  # whether batches bring labels; a change of them then makes what it trained stale

    def loss(self, phase: str, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The phase's loss (a scalar, mean over the slice) and scalars worth a curve."""
