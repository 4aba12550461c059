"""The judge: what it knows of each label, and its limits."""

from typing import Any

from facefactory.report.facts import Facts
from facefactory.report.sections import Section


class Component(Section):
    """Scores of the judge on people that it did not learn from."""

    title = "Judge"
    place = 85
    kinds = ("sweep", "generative")

    def suits(self, facts: Facts) -> bool:
        """Where generated images are looked at."""
        return super().suits(facts) and not any(run["labels"] for run in facts.runs)

    def data(self, facts: Facts) -> dict[str, Any]:
        """As the stage judge wrote it; empty: there was none."""
        return facts.judge
