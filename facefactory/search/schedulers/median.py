"""The median rule: a trial stops whose best score is behind the median of the others' running means at the same clock
(Golovin et al., KDD 2017, §3.2).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from facefactory.search.schedulers import Scheduler

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


class Component(Scheduler):
    """Ray Tune's, from the third trial on."""

    def shares(self, rungs: list[float], reduction: int) -> list[float]:
        """Half of them go on."""
        return [0.5**place for place in range(len(rungs))]

    def ray(self, rungs: list[float], reduction: int) -> TrialScheduler:
        """Stops what is behind at the first rung or later."""
        from ray.tune.schedulers import MedianStoppingRule

        return MedianStoppingRule(
            "kimg",
            grace_period=rungs[0],
            min_samples_required=3,
            min_time_slice=math.inf,  # no trial waits for others
        )
