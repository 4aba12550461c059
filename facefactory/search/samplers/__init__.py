"""How a search proposes points: one way a file. This file is optuna-free.

A sampler file defines `class Component(Sampler)` with its paper; its keyword-only arguments are its options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from facefactory.search.space import Space
from facefactory.trials import Params

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Sampler(Protocol):
    """Where the points of a search come from."""

    def points(self, space: Space, count: int, seed: int) -> list[Params] | None:
        """The first `count` points, or all where there are fewer; None: each depends on what others scored, or on chance.

        UserError: the space has entries that it cannot draw from.
        """
        return None

    def optuna(self, seed: int) -> BaseSampler:
        """What proposes points after those that are known."""
        ...
