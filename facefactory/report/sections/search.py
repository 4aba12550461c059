"""The search as Optuna's figures: parallel coordinates, slices and contours of the trials at the last rung."""

from dataclasses import dataclass

from markupsafe import Markup

from facefactory.report import plots
from facefactory.report.facts import Facts
from facefactory.report.sections import Section
from facefactory.report.studies import Group, groups, study

LARGEST = 300  # trials that figures show, the best


@dataclass(frozen=True)
class Searched:
    """What the figures show."""

    trials: int  # at the last rung
    shown: int
    groups: list[Group]  # of trials with equal parameters


class Component(Section):
    """Of all trials by the parameters that all have, and of each family by its own."""

    title = "Search"
    place = 40
    kinds = ("sweep",)

    def data(self, facts: Facts) -> Searched:
        """The groups of trials."""
        whole = study(facts.trials, facts.goal)
        count = len(whole.trials)
        return Searched(count, min(count, LARGEST), groups(facts.trials))

    def figures(self, facts: Facts, data: Searched) -> dict[str, Markup]:
        """Three figures of the whole, and parallel coordinates of each family where there are several."""
        if not facts.trials:
            return {}
        found = plots.searched(study(facts.trials, facts.goal, LARGEST), facts.goal)
        if len(data.groups) > 1:
            for number, group in enumerate(data.groups):
                own = [trial for trial in facts.trials if trial.name in group.trials]
                drawn = study(own, facts.goal, LARGEST)
                name = f"parallel-coordinates-{number}"
                found[name] = plots.parallel(name, drawn, facts.goal)
        return found
