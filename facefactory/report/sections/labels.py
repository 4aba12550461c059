"""How well a classifier knows each label."""

from typing import Any

from facefactory.report.facts import Facts
from facefactory.report.sections import Section


class Component(Section):
    """Counts, accuracy and confusion by label."""

    title = "Labels"
    place = 22

    def suits(self, facts: Facts) -> bool:
        """Of a classifier, and of a search among classifiers."""
        return facts.kind == "classifier" or any(run["labels"] for run in facts.runs)

    def data(self, facts: Facts) -> dict[str, dict[str, Any]]:
        """Run -> label -> its scores, as the stage evaluate wrote them."""
        return {run["name"]: run["labels"] for run in facts.runs}
