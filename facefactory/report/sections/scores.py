"""All scores side by side, their scale, what they are blind to, and whether feature networks agree."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from facefactory.report import plots, scores
from facefactory.report.facts import Facts
from facefactory.report.sections import Section


@dataclass(frozen=True)
class Scored:
    """What stands in the tables."""

    rows: list[dict[str, Any]]  # a row a score, by which runs are ranked first
    disagreements: list[dict[str, Any]]  # of feature networks


class Component(Section):
    """Scores of runs."""

    title = "Scores"
    place = 25
    kinds = ("sweep", "generative", "pictures")

    def suits(self, facts: Facts) -> bool:
        """Where images are scored."""
        return super().suits(facts) and not any(run["labels"] for run in facts.runs)

    def data(self, facts: Facts) -> Scored:
        """A row a score, and where networks disagree."""
        rows = scores.rows(facts.runs)
        rows.sort(key=lambda row: row["name"] != facts.metric)
        return Scored(rows, disagreements(facts))

    def figures(self, facts: Facts, data: Scored) -> dict[str, Markup]:
        """The scale of the score that ranks."""
        line = plots.drawn("scale", plots.scale_line, facts.runs, facts.metric)
        return {"scale": line}


def disagreements(facts: Facts) -> list[dict[str, Any]]:
    """Pairs of networks that rank the runs differently; none where runs are not ranked."""
    if facts.unlike:
        return []
    return scores.disagreements([run for run in facts.runs if run["scores"]], facts.metric)
