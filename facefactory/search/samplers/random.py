"""Independent random points (Bergstra and Bengio, JMLR 2012): what any other sampler has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefactory.search.samplers import Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Component(Sampler):
    """Optuna's."""

    def optuna(self, seed: int) -> BaseSampler:
        """Random points from a seed."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)
