"""The median rule: a trial stops whose best score is behind the median of the others' running means at the same clock
(Golovin et al., KDD 2017, §3.2).
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from facefactory.search.schedulers import Scheduler

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

SEEN = 3  # others, before one is stopped


class Component(Scheduler):
    """Ray Tune's, from the third trial on."""

    def shares(self, rungs: list[float], reduction: int) -> list[float]:
        """Half of them go on."""
        return [0.5**place for place in range(len(rungs))]

    def goes_on(self, scores: list[float], others: list[list[float]], reduction: int) -> bool:
        """Whether its best score is no worse than the median of the others' means up to its rung, from the third other on."""
        rung = len(scores) - 1
        means = [statistics.fmean(other[: rung + 1]) for other in others if len(other) > rung]
        return len(means) < SEEN or min(scores) <= statistics.median(means)

    def ray(self, rungs: list[float], reduction: int) -> TrialScheduler:
        """Stops what is behind at the first rung or later."""
        from ray.tune.schedulers import MedianStoppingRule

        return MedianStoppingRule(
            "kimg",
            grace_period=rungs[0],
            min_samples_required=SEEN,
            min_time_slice=math.inf,  # no trial waits for others
        )
