"""Scores of the trials at each rung, against images, hours or the clock, and what trainings logged."""

from dataclasses import dataclass

from markupsafe import Markup

from facefactory.report import plots
from facefactory.report.facts import Facts
from facefactory.report.sections import Section
from facefactory.trials import Trial


@dataclass(frozen=True)
class Curve:
    """A trial's way."""

    name: str
    state: str
    kimg: list[float]
    score: list[float]
    hours: list[float | None]  # of training until then, all starts of it together


@dataclass(frozen=True)
class Curves:
    """All trials, the best first."""

    metric: str
    better: str
    rungs: list[float]  # where trials are compared [kimg]
    trials: list[Curve]


class Component(Section):
    """Learning curves."""

    title = "Curves"
    place = 30
    kinds = ("sweep", "generative", "classifier")

    def data(self, facts: Facts) -> Curves:
        """The ways of all trials that have a score, those that came furthest with the best scores first."""
        found = []
        for trial in facts.trials:
            curve = curve_of(trial, facts.metric)
            if curve.score:
                found.append(curve)
        found.sort(key=lambda curve: (-curve.kimg[-1], facts.sign * curve.score[-1]))
        rungs = sorted({kimg for curve in found for kimg in curve.kimg})
        return Curves(facts.metric, facts.better, rungs, found)

    def figures(self, facts: Facts, data: Curves) -> dict[str, Markup]:
        """What the trainings logged."""
        return {"training": plots.drawn("training", plots.training_curves, facts.logged)}

    def scripted(self, facts: Facts, data: Curves) -> Curves | None:
        """The ways, where there are some."""
        return data if data.trials else None


def curve_of(trial: Trial, metric: str) -> Curve:
    """The rungs at which a trial has that score."""
    curve = Curve(trial.name, trial.state, [], [], [])
    for rung, hours in zip(trial.rungs, hours_of(trial), strict=True):
        score = rung.scores.get(metric)
        if score is not None:
            curve.kimg.append(rung.kimg)
            curve.score.append(score)
            curve.hours.append(hours)
    return curve


def hours_of(trial: Trial) -> list[float | None]:
    """Hours of training until each rung: a process that went on after a break counts from anew."""
    found: list[float | None] = []
    before = 0.0
    last = 0.0
    for rung in trial.rungs:
        if rung.seconds is None:
            found.append(None)
            continue
        if rung.seconds < last:
            before += last
        last = rung.seconds
        found.append((before + last) / 3600)
    return found
