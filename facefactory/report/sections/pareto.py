"""Quality against cost: which trials are beaten by none that cost less."""

from dataclasses import asdict, dataclass

from facefactory.report.facts import Facts
from facefactory.report.sections import Section
from facefactory.report.sections.leaderboard import Row, rows


@dataclass(frozen=True)
class Point:
    """A finalist or trial with a score and a cost."""

    kind: str
    name: str
    state: str
    hours: float  # of training
    kimg: float
    score: float
    front: bool  # whether no other is both better and cheaper


class Component(Section):
    """Scores against hours of training."""

    title = "Quality against cost"
    place = 70
    kinds = ("sweep",)

    def data(self, facts: Facts) -> list[Point]:
        """Points, the cheapest first; trials alone are on the front: finalists are scored by another protocol."""
        known = [row for row in rows(facts) if row.score is not None and row.hours]
        known.sort(key=lambda row: row.hours or 0)
        best = float("inf")
        points = []
        for row in known:
            value = facts.sign * (row.score or 0)
            front = row.kind == "trial" and value < best
            best = value if front else best
            points.append(_point(row, front))
        return points

    def front(self, data: list[Point]) -> list[dict[str, object]]:
        """The points on the front, as rows of a table."""
        return [asdict(point) for point in data if point.front]

    def scripted(self, facts: Facts, data: list[Point]) -> dict[str, object] | None:
        """The points, where there are some."""
        return {"metric": facts.metric, "points": data} if data else None


def _point(row: Row, front: bool) -> Point:
    return Point(
        row.kind,
        row.name,
        row.state,
        row.hours or 0.0,
        row.kimg or 0.0,
        row.score or 0.0,
        front,
    )
