"""What it took: waits, times and lost hours, from the ledger."""

from facefactory.report.costs import Costs, costs
from facefactory.report.facts import Facts, span
from facefactory.report.sections import Section


class Component(Section):
    """Times of stages and trials."""

    title = "Resources"
    place = 90

    def data(self, facts: Facts) -> Costs:
        """All that files say of it."""
        return costs(facts)

    def sentences(self, data: Costs) -> list[str]:
        """What the hours went into."""
        if not data.total_hours:
            return []
        names = {"finished": "finished", "stopped": "were stopped early", "failed": "failed"}
        parts = []
        for state, hours in data.hours.items():
            parts.append(f"{span(3600 * hours)} on trials that {names.get(state, state)}")
        if data.finalists_hours:
            parts.append(f"{span(3600 * data.finalists_hours)} on the full trainings")
        return [f"Training took {span(3600 * data.total_hours)}: {', '.join(parts)}."]
