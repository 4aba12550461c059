"""Finalists and trials by their scores: a table that sorts, filters and leaves as CSV or LaTeX."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facefactory.report import scores
from facefactory.report.facts import Facts, rounded
from facefactory.report.sections import Section
from facefactory.report.sections.confirmed import confirmation
from facefactory.report.sections.curves import hours_of
from facefactory.results import Protocol
from facefactory.rundir import read_sealed
from facefactory.trials import Trial

DRAWN = 50  # rows that stand in the page before its script draws more


@dataclass(frozen=True)
class Row:
    """A finalist or a trial."""

    kind: str
    name: str
    state: str
    kimg: float | None
    score: float | None
    low: float | None = None  # 95 % interval of the score
    high: float | None = None
    hours: float | None = None  # of training
    confirmed: float | None = None  # mean over fresh seeds
    params: dict[str, Any] = field(default_factory=dict)


class Component(Section):
    """Finalists by score, then trials by how far they came and their score there: unlike rungs are not compared."""

    title = "Leaderboard"
    place = 20
    kinds = ("sweep",)
    drawn = DRAWN

    def data(self, facts: Facts) -> list[Row]:
        """The rows, best first."""
        return rows(facts)

    def columns(self, data: list[Row]) -> list[str]:
        """Those that any row has something in."""
        named = ["kind", "name", "state", "kimg", "score"]
        named += [name for name in ("confirmed", "hours") if any(getattr(r, name) for r in data)]
        return named + sorted({name for row in data for name in row.params})

    def cell(self, row: Row, name: str) -> Any:
        """What stands in a column."""
        return cell(row, name)

    def short(self, name: str) -> str:
        """A parameter without the sections of the config that it lies in."""
        return ".".join(name.split(".")[-2:])

    def scripted(self, facts: Facts, data: list[Row]) -> dict[str, Any] | None:
        """The cells, and what stands below the table in a paper."""
        if not data:
            return None
        columns = self.columns(data)
        cells = [[cell(row, name) for name in columns] for row in data]
        return {
            "columns": columns,
            "rows": cells,
            "better": facts.better,
            "metric": facts.metric,
            "caption": caption(facts),
            "drawn": DRAWN,
        }


def cell(row: Row, name: str) -> Any:
    """What stands in a column: a field, or a parameter; None: nothing."""
    return row.params.get(name) if name not in Row.__dataclass_fields__ else getattr(row, name)


def rows(facts: Facts) -> list[Row]:
    """Finalists, then trials."""
    tried = {trial.name: trial for trial in facts.trials}
    means = {row.trial: row.mean for row in confirmation(facts).rows}
    found = []
    for run in facts.runs:
        trial = tried.get(run["trial"])
        low, high = run["interval"] or (None, None)
        found.append(
            Row(
                "finalist",
                run["name"],
                run["state"],
                run["kimg"],
                run["score"],
                low,
                high,
                trained_hours(facts.folder / run["folder"]),
                means.get(run["trial"]),
                trial.params if trial else {},
            )
        )
    return found + sorted(map(row_of(facts.metric), facts.trials), key=_order(facts.sign))


def row_of(metric: str) -> Any:
    """What makes a row of a trial."""

    def row(trial: Trial) -> Row:
        kimg, score = trial.last(metric) or (None, None)
        hours = (hours_of(trial) or [None])[-1]
        return Row("trial", trial.name, trial.state, kimg, score, hours=hours, params=trial.params)

    return row


def _order(sign: int) -> Any:
    return lambda row: (-(row.kimg or 0), row.score is None, sign * (row.score or 0))


def trained_hours(run: Path) -> float | None:
    """How long the training of a run took that finished."""
    seconds = (read_sealed(run / "train/DONE.json") or {}).get("seconds")
    return seconds / 3600 if isinstance(seconds, int | float) else None


def caption(facts: Facts) -> str:
    """The score, its protocol and what it was computed of, in a sentence."""
    for run in facts.runs:
        score = scores.scores_of(run).get(facts.metric)
        protocol = scores.protocol_of(run, score) if score else None
        if protocol is not None:
            return protocol_words(facts, protocol)
    return f"Trials of {facts.name} by {facts.metric} ({facts.better} is better)."


def protocol_words(facts: Facts, protocol: Protocol) -> str:
    """A protocol as the caption of a table has it."""
    return (
        f"Trials of {facts.name} by {facts.metric} ({facts.better} is better): "
        f"{protocol.fakes:,} generated against {protocol.reals:,} real images ({protocol.split} split, "
        f"data {protocol.dataset}), features {protocol.features} {protocol.weights}, resized {protocol.resize}, "
        f"rounded to {protocol.rounding}, averaged weights {protocol.average}, "
        f"truncation {rounded(protocol.truncation)}, protocol {protocol.id()}. Scores of trials are the search's "
        "quick ones, of finalists those of the full protocol."
    )
