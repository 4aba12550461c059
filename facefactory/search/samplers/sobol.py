"""Sobol's sequence: points that fill the space more evenly than random ones (Sobol 1967, scrambled after Owen 1998).

Each alternative of each parameter is a dimension, also of those that do not apply. Optuna's own sampler of this name draws
whatever has a condition by chance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from facefactory.search.samplers import Sampler
from facefactory.search.space import Space, dimensions, placed
from facefactory.trials import Params

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Component(Sampler):
    """SciPy's; more trials go on with the sequence."""

    def points(self, space: Space, count: int, seed: int) -> list[Params]:
        """The first ones of the sequence of a seed."""
        from scipy.stats import qmc

        sequence = qmc.Sobol(dimensions(space), rng=seed)
        shares = sequence.random_base2(math.ceil(math.log2(count)))  # it is even in powers of two
        return [placed(list(map(float, row)), space) for row in shares[:count]]

    def optuna(self, seed: int) -> BaseSampler:
        """Nothing is drawn, all points are known before."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)
