"""What a run took: hours of its trials by how they ended, waits and times of its stages."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from facefactory.report.facts import Facts
from facefactory.report.sections.curves import hours_of
from facefactory.rundir import read_ledger, read_sealed


@dataclass(frozen=True)
class StageTime:
    """A stage, by the ledger."""

    stage: str
    starts: int
    waited_s: float | None  # from the submission to the first start; None: it was not submitted
    elapsed_s: float  # all starts together, those that failed too
    lost_s: float  # of starts that failed or were interrupted
    state: str  # the last


@dataclass(frozen=True)
class Costs:
    """All that is known of times and resources."""

    stages: list[StageTime] = field(default_factory=list)
    hours: dict[str, float] = field(default_factory=dict)  # how trials ended -> hours of training
    finalists_hours: float = 0.0

    @property
    def total_hours(self) -> float:
        """Of trials and finalists."""
        return sum(self.hours.values()) + self.finalists_hours


def costs(facts: Facts) -> Costs:
    """From the ledger and the trials' own times."""
    hours: dict[str, float] = defaultdict(float)
    for trial in facts.trials:
        known = [value for value in hours_of(trial) if value is not None]
        if known:
            hours[trial.state] += known[-1]
    finals = 0.0
    for run in facts.runs:
        done = read_sealed(facts.folder / run["folder"] / "train/DONE.json") or {}
        finals += float(done.get("seconds") or 0) / 3600
    return Costs(
        stages=stage_times(read_ledger(facts.folder)),
        hours=dict(hours),
        finalists_hours=finals,
    )


def stage_times(ledger: list[dict[str, Any]]) -> list[StageTime]:
    """A row a stage: lines `submitted`, `running` and how it ended."""
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in ledger:
        lines[line["stage"]].append(line)
    return [_stage_time(stage, own) for stage, own in lines.items()]


def _stage_time(stage: str, lines: list[dict[str, Any]]) -> StageTime:
    """The starts of one stage, one after the other."""
    submitted = next((line["time"] for line in lines if line["state"] == "submitted"), None)
    waited = None
    began: float | None = None
    starts = 0
    elapsed = 0.0
    lost = 0.0
    for line in lines:
        if line["state"] == "running":
            starts += 1
            began = line["time"]
            if submitted is not None and waited is None:
                waited = max(0.0, line["time"] - submitted)
        elif began is not None and line["state"] in ("finished", "failed", "interrupted"):
            took = line.get("seconds", line["time"] - began)
            elapsed += took
            lost += took if line["state"] != "finished" else 0.0
            began = None
    return StageTime(stage, starts, waited, elapsed, lost, lines[-1]["state"])
