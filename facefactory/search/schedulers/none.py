"""Every trial goes to its whole budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefactory.search.schedulers import Scheduler

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


class Component(Scheduler):
    """Ray Tune's queue."""

    def shares(self, rungs: list[float], reduction: int) -> list[float]:
        """All."""
        return [1.0] * len(rungs)

    def goes_on(self, scores: list[float], others: list[list[float]], reduction: int) -> bool:
        """Always."""
        return True

    def ray(self, rungs: list[float], reduction: int) -> TrialScheduler:
        """Stops nothing."""
        from ray.tune.schedulers import FIFOScheduler

        return FIFOScheduler()
