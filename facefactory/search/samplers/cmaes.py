"""CMA-ES: a normal distribution over the ranges that moves towards the better points (Hansen and Ostermeier 2001).

Choices, and parameters with conditions, are drawn by chance.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from facefactory import UserError
from facefactory.search.samplers import Sampler
from facefactory.search.space import Space, alternatives, kind_of
from facefactory.trials import Params

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

FEWEST = 2  # ranges


class Component(Sampler):
    """Optuna's, by the package `cmaes`."""

    def points(self, space: Space, count: int, seed: int) -> list[Params] | None:
        """UserError: the package is missing, or fewer than two ranges are without conditions."""
        if importlib.util.find_spec("cmaes") is None:
            raise UserError(
                "sweep.sampler=cmaes needs the package cmaes: pip install 'facefactory[cmaes]'."
            )
        ranges = []
        for name, given in space.items():
            (first, *others) = alternatives(given)
            is_range = kind_of(first)[0] not in ("choice", "value")
            if is_range and not others and "when" not in first:
                ranges.append(name)
        if len(ranges) < FEWEST:
            raise UserError(
                f"sweep.sampler=cmaes moves in {FEWEST} ranges or more that have no condition; this space has "
                f"{', '.join(ranges) or 'none'}. Use tpe, or sobol."
            )
        return None

    def optuna(self, seed: int) -> BaseSampler:
        """CMA-ES from a seed."""
        from optuna.samplers import CmaEsSampler

        return CmaEsSampler(seed=seed, warn_independent_sampling=False)
