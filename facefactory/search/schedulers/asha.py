"""Asynchronous successive halving: at each rung the best of those seen so far go on (Li et al., MLSys 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefactory.search.schedulers import Scheduler

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


class Component(Scheduler):
    """Ray Tune's."""

    def shares(self, rungs: list[float], reduction: int) -> list[float]:
        """One of `reduction` goes on."""
        return [reduction**-place for place in range(len(rungs))]

    def goes_on(self, scores: list[float], others: list[list[float]], reduction: int) -> bool:
        """Whether it is among the best 1 of `reduction` at its rung, of those that came there before."""
        import numpy as np

        rung = len(scores) - 1
        seen = [other[rung] for other in others if len(other) > rung]
        finite = [score for score in seen if np.isfinite(score)]
        return not finite or scores[rung] <= float(np.percentile(finite, 100 / reduction))

    def ray(self, rungs: list[float], reduction: int) -> TrialScheduler:
        """Stops all but 1 of `reduction` at each rung but the last."""
        from ray.tune.schedulers import AsyncHyperBandScheduler

        return AsyncHyperBandScheduler(
            "kimg",
            grace_period=rungs[0],
            max_t=rungs[-1],
            reduction_factor=reduction,
        )
