"""Which trials go on at a rung: one rule a file. This file is free of Ray.

A scheduler file defines `class Component(Scheduler)` with its paper; its keyword-only arguments are its options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from facefactory import UserError

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


class Scheduler(Protocol):
    """A rule by which trials are stopped before their budget is used up."""

    def shares(self, rungs: list[float], reduction: int) -> list[float]:
        """Of all trials, those that it means to take to each rung."""
        ...

    def goes_on(self, scores: list[float], others: list[list[float]], reduction: int) -> bool:
        """Whether a trial goes on after its last rung, where no Ray decides.

        `scores` of the trial at its rungs so far, and of each other one; less is better, infinite is none.
        UserError: the rule needs sweep.engine=ray.
        """
        raise UserError(
            f"sweep.scheduler={type(self).__module__.rpartition('.')[2]} needs sweep.engine=ray; "
            "give asha, median or none, or that engine."
        )

    def ray(self, rungs: list[float], reduction: int) -> TrialScheduler:
        """Ray Tune's, for results whose clock is `kimg`; `rungs` [kimg], of which 1 of `reduction` trials goes on."""
        ...
