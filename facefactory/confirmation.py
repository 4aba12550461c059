"""What the best trials of a search are worth on fresh seeds: a mean of each with Student's interval, and how far the search flattered its winner."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from facefactory.failures import Failure
from facefactory.results import Estimate, Goal
from facefactory.trials import State


@dataclass(frozen=True)
class Repeat:
    """One training of a trial's config from a fresh seed to the full budget, and its score."""

    name: str  # of its folder
    folder: str  # below the run folder
    seed: int
    state: State
    score: float | None = None
    error: str | None = None
    log_tail: str | None = None
    failure: Failure | None = None  # why it failed

    @classmethod
    def read(cls, entry: dict[str, Any]) -> Repeat:
        """From an entry of results.json."""
        return cls(**{**entry, "failure": Failure.read(entry.get("failure"))})


@dataclass(frozen=True)
class Confirmed:
    """What a trial is worth."""

    trial: str
    searched: float | None  # its score at its last rung, in the search's metric
    searched_kimg: float | None
    finalist: float | None  # its score at the full budget, from the seed of the search
    repeats: tuple[Repeat, ...]

    @classmethod
    def read(cls, entry: dict[str, Any]) -> Confirmed:
        """From an entry of results.json."""
        names = [one.name for one in dataclasses.fields(cls)]
        known = {name: entry[name] for name in names}
        known["repeats"] = tuple(map(Repeat.read, entry["repeats"]))
        return cls(**known)

    def entry(self) -> dict[str, Any]:
        """As it is written to results.json."""
        estimate = self.estimate()
        return {
            **dataclasses.asdict(self),
            "mean": estimate and estimate.value,
            "interval": self.interval(),
            "curse": self.curse(),
        }

    def scores(self) -> list[float]:
        """Of the repeats that ended well."""
        return [one.score for one in self.repeats if one.score is not None]

    def estimate(self) -> Estimate | None:
        """Mean with Student's interval, infinite for a single score; None: no repeat ended well."""
        scores = self.scores()
        return student(scores) if scores else None

    def interval(self) -> list[float] | None:
        """The interval, where two scores at least have one."""
        estimate = self.estimate()
        if estimate is None or len(self.scores()) < 2:
            return None
        return [estimate.low, estimate.high]

    def curse(self) -> float | None:
        """The finalist's score less the confirmed mean: both under one protocol, at one budget."""
        estimate = self.estimate()
        if estimate is None or self.finalist is None:
            return None
        return self.finalist - estimate.value


def student(scores: Sequence[float]) -> Estimate:
    """Mean of independent scores with Student's 95 % interval (Student, Biometrika 1908).

    ValueError: there are none. One score alone has an infinite interval.
    """
    mean = statistics.fmean(scores)
    count = len(scores)
    if count < 2:
        return Estimate(mean, -math.inf, math.inf)
    from facefactory.metrics import intervals

    half = intervals.quantile(count - 1) * statistics.stdev(scores) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)


def ranked(found: Sequence[Confirmed], goal: Goal) -> list[Confirmed]:
    """By their confirmed means, the best first; those without one come last."""

    def place(one: Confirmed) -> float:
        estimate = one.estimate()
        if estimate is None:
            return float("inf")
        return estimate.value if goal.better == "lower" else -estimate.value

    return sorted(found, key=place)


def search_best(found: Sequence[Confirmed], goal: Goal) -> Confirmed | None:
    """The finalist that scored best from the seed of the search; None: none has a score."""
    scored = {one.finalist: one for one in found if one.finalist is not None}
    return scored[goal.best(list(scored))] if scored else None


def summary(found: Sequence[Confirmed], goal: Goal, searched: Goal) -> dict[str, Any]:
    """The content of confirm/results.json.

    `goal`: the score of the full budget; `searched`: that by which the search chose. `curse` is that
    of the search's best: what was best by chance looks worse again.
    """
    order = ranked(found, goal)
    first = search_best(order, goal)
    best = order[0] if order and order[0].scores() else None
    return {
        **dataclasses.asdict(goal),
        "searched": dataclasses.asdict(searched),
        "search_best": first and first.trial,
        "confirmed_best": best and best.trial,
        "curse": first and first.curse(),
        "trials": [one.entry() for one in order],
    }
