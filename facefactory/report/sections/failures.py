"""What did not end well: why, with the end of its log, and what to change."""

from collections import Counter

from facefactory.report.facts import Facts
from facefactory.report.failing import Ending, endings
from facefactory.report.sections import Section


class Component(Section):
    """Trials, finalists and stages."""

    title = "Failures"
    place = 100

    def data(self, facts: Facts) -> list[Ending]:
        """One record a failure."""
        return endings(facts)

    def causes(self, data: list[Ending]) -> dict[str, int]:
        """How many there are of each class, where classes are recorded."""
        return dict(Counter(one.cause for one in data if one.cause).most_common())
