"""The best trials on fresh seeds: what the search chose, what holds, and how far the search flattered itself."""

from dataclasses import asdict, dataclass, field
from typing import Any

from facefactory.confirmation import Confirmed
from facefactory.report.facts import Facts
from facefactory.report.sections import Section
from facefactory.rundir import read_results


@dataclass(frozen=True)
class Row:
    """A trial on fresh seeds."""

    trial: str
    searched: float | None  # its score in the search
    finalist: float | None  # at the full budget, from the seed of the search
    mean: float | None  # over fresh seeds
    low: float | None  # 95 % interval
    high: float | None
    seeds: int  # that ended well
    failed: int
    curse: float | None  # finalist less mean


@dataclass(frozen=True)
class Confirmation:
    """All of them, the best by the mean first."""

    search_best: str | None = None
    confirmed_best: str | None = None
    curse: float | None = None  # of the search's best
    metric: str = ""
    rows: list[Row] = field(default_factory=list)


class Component(Section):
    """Means with Student's intervals."""

    title = "Confirmed"
    place = 21
    kinds = ("sweep",)

    def suits(self, facts: Facts) -> bool:
        """Where the best were trained again."""
        return super().suits(facts) and bool(confirmation(facts).rows)

    def data(self, facts: Facts) -> Confirmation:
        """As the stage confirm wrote it."""
        return confirmation(facts)

    def table(self, data: Confirmation) -> list[dict[str, Any]]:
        """Rows of a table."""
        return [asdict(row) for row in data.rows]


def confirmation(facts: Facts) -> Confirmation:
    """What confirm/results.json says; empty where nothing was confirmed."""
    content = read_results(facts.folder / "confirm")
    if "trials" not in content:
        return Confirmation()
    return Confirmation(
        search_best=content.get("search_best"),
        confirmed_best=content.get("confirmed_best"),
        curse=content.get("curse"),
        metric=content.get("metric", facts.metric),
        rows=[_row(Confirmed.read(entry)) for entry in content["trials"]],
    )


def _row(one: Confirmed) -> Row:
    estimate = one.estimate()
    low, high = one.interval() or (None, None)
    well = len(one.scores())
    return Row(
        trial=one.trial,
        searched=one.searched,
        finalist=one.finalist,
        mean=estimate.value if estimate else None,
        low=low,
        high=high,
        seeds=well,
        failed=len(one.repeats) - well,
        curse=one.curse(),
    )
