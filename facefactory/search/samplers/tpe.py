"""Tree-structured Parzen estimators: points that are likely among the good trials and unlikely among the others
(Bergstra et al., NeurIPS 2011; Watanabe 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefactory.search.samplers import Sampler

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Component(Sampler):
    """Optuna's, with its defaults: the first ten points are random."""

    def optuna(self, seed: int) -> BaseSampler:
        """TPE from a seed."""
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed)
