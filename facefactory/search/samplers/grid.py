"""Every point of a space of choices, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefactory.search.samplers import Sampler
from facefactory.search.space import Space, grid
from facefactory.trials import Params

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Component(Sampler):
    """Each distinct point once."""

    def points(self, space: Space, count: int, seed: int) -> list[Params]:
        """The first of all; UserError: an entry is a range."""
        return grid(space)[:count]

    def optuna(self, seed: int) -> BaseSampler:
        """Nothing is drawn, all points are known before."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)
