"""Which trials go on at a rung: one rule a file. This file is free of Ray.

A scheduler file defines `class Component(Scheduler)` with its paper; its keyword-only arguments are its options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


class Scheduler(Protocol):
    """A rule by which trials are stopped before their budget is used up."""

    def shares(self, rungs: list[float], reduction: int) -> list[float]:
        """Of all trials, those that it means to take to each rung."""
        ...

    def ray(self, rungs: list[float], reduction: int) -> TrialScheduler:
        """Ray Tune's, for results whose clock is `kimg`; `rungs` [kimg], of which 1 of `reduction` trials goes on."""
        ...
