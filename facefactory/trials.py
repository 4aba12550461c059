"""Trials of a search: what is known of one, and its folder; the one place that knows their keys and files.

`trial.json` number and parameters · `scores.jsonl` a line a rung · `state.json` how it ended, once it has · and what
any run folder has, of its training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from facefactory import failures, rundir
from facefactory.failures import Failure

Params = dict[str, Any]  # dotted config key -> value
State = Literal["finished", "stopped", "failed", "interrupted", "infeasible"]
OVER: tuple[State, ...] = (
    "finished",
    "stopped",
    "failed",
    "infeasible",
)  # trials that do not go on by themselves
MOST_RETRIES = 3  # of a trial that failed
MOST_LOSSES = 3  # of its process, in a row, with nothing scored or saved in between


@dataclass(frozen=True)
class Rung:
    """What a trial scored at one budget."""

    kimg: float
    scores: dict[str, float | None]  # None: no finite number
    seconds: float | None = None  # since the process began that trained it

    @classmethod
    def read(cls, line: dict[str, Any]) -> Rung:
        """From a line of scores.jsonl or results.json; ValueError or TypeError: it is none."""
        numbers = {name: _finite(value) for name, value in line.items()}
        kimg = numbers.pop("kimg", None)
        seconds = numbers.pop("seconds", None)
        if kimg is None:
            raise ValueError("no kimg")
        return cls(kimg, numbers, seconds)

    def line(self) -> dict[str, Any]:
        """As it is written: scores stand beside the budget."""
        timed = {} if self.seconds is None else {"seconds": self.seconds}
        return {"kimg": self.kimg, **self.scores, **timed}


@dataclass(frozen=True)
class Trial:
    """One point of a search: what was tried, how it ended and what it scored."""

    name: str  # of its folder
    number: int
    params: Params
    state: State = "interrupted"
    rungs: tuple[Rung, ...] = ()
    error: str | None = None
    failure: Failure | None = None  # why it failed
    distributions: dict[str, str] = field(default_factory=dict)  # parameter -> Optuna's JSON
    costs: dict[str, float] = field(default_factory=dict)  # estimated, where they were too high

    @classmethod
    def read(cls, entry: dict[str, Any]) -> Trial:
        """From an entry of results.json."""
        names = [one.name for one in dataclasses.fields(cls)]
        known = {name: entry[name] for name in names if name in entry}
        known["rungs"] = tuple(map(Rung.read, entry["scores"]))
        known["failure"] = _failure(entry)
        return cls(**known)

    def entry(self) -> dict[str, Any]:
        """As it is written to results.json."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        del values["rungs"]
        values["failure"] = self.failure and dataclasses.asdict(self.failure)
        return {**values, "scores": [rung.line() for rung in self.rungs]}

    def last(self, metric: str) -> tuple[float, float] | None:
        """Budget [kimg] and score of the furthest rung at which it has that score."""
        scored = []
        for rung in self.rungs:
            score = rung.scores.get(metric)
            if score is not None:
                scored.append((rung.kimg, score))
        return max(scored, default=None)

    def timeless(self) -> list[Any]:
        """What it is known by, whenever it ran."""
        return [self.name, self.state, [{"kimg": one.kimg, **one.scores} for one in self.rungs]]


@dataclass(frozen=True)
class Finalist:
    """How one of the best trials ended that went on to the full budget."""

    name: str  # of its folder
    trial: str
    folder: str  # below the run folder
    state: State
    error: str | None = None
    log_tail: str | None = None
    failure: Failure | None = None  # why it failed

    @classmethod
    def read(cls, entry: dict[str, Any]) -> Finalist:
        """From an entry of results.json."""
        return cls(**{**entry, "failure": _failure(entry)})


@dataclass(frozen=True)
class Raised:
    """What a trial is given beyond what all have, because it failed without."""

    retries: int = 0
    accumulate: int = 1  # times the parts that a batch is cut into
    memory: int = 1  # times the memory of its job, where it has a job of its own
    minutes: int = 1  # times the time limit of that

    def after(self, failure: Failure) -> Raised:
        """Twice of what it lacked: fewer images at once for want of memory, and a larger job."""
        more = dataclasses.replace(self, retries=self.retries + 1)
        match failure.kind:
            case "gpu memory":
                return dataclasses.replace(more, accumulate=2 * self.accumulate)
            case "host memory" | "killed":
                return dataclasses.replace(more, memory=2 * self.memory)
            case "timeout":
                return dataclasses.replace(more, minutes=2 * self.minutes)
        return more


@dataclass(frozen=True)
class TrialFolder:
    """What a trial keeps of itself, so that a killed search goes on where it stood."""

    path: Path

    def begin(self, number: int, params: Params) -> None:
        """Write down what is tried, unless that stands there; a damaged file is written anew."""
        if self._made() is None:
            rundir.write_json(self.path / "trial.json", {"number": number, "params": params})

    def add(self, rung: Rung) -> None:
        """Write down what it scored."""
        rundir.append_json(self.path / "scores.jsonl", rung.line())

    def end(
        self,
        state: State,
        error: str | None = None,
        failure: Failure | None = None,
        costs: dict[str, float] | None = None,
    ) -> None:
        """Write down how it ended; `costs`: what was estimated of one that is not tried."""
        why: dict[str, Any] = {} if error is None else {"error": error}
        if costs is not None:
            why["costs"] = costs
        if failure is not None:
            why["failure"] = dataclasses.asdict(failure)
        rundir.write_json(self.path / "state.json", {"state": state, **why})

    def take_up(self) -> None:
        """It has not ended any more."""
        (self.path / "state.json").unlink(missing_ok=True)

    def raised(self) -> Raised:
        """What it is given beyond what all have."""
        found = rundir.read_json(self.path / "raised.json")
        names = [one.name for one in dataclasses.fields(Raised)]
        fits = isinstance(found, dict) and found.keys() == set(names)
        if not fits or not all(isinstance(found[name], int) for name in names):
            return Raised()
        return Raised(**found)

    def retry(self, failure: Failure) -> None:
        """Try it again, with twice of what it lacked."""
        raised = self.raised().after(failure)
        rundir.write_json(self.path / "raised.json", dataclasses.asdict(raised))
        self.take_up()

    def lost(self) -> None:
        """Its process ended without a word, and the search goes on: the third time in a row it has failed."""
        saved = sorted(path.name for path in self.path.glob("train/checkpoints/*.pt"))
        stands = [len(self.rungs()), saved[-1:]]
        path = self.path / "losses.json"
        losses = 1
        match rundir.read_json(path):
            case {"stands": before, "losses": int(count)} if before == stands:
                losses = count + 1
        rundir.write_json(path, {"stands": stands, "losses": losses})
        if losses >= MOST_LOSSES:
            path.unlink()
            why = f"its process was lost {losses} times in a row, with nothing saved in between"
            self.end("failed", why, failures.made("killed", why))

    def close(self) -> None:
        """Write down how it ended where it did not itself: it was stopped at a rung, unless that was the last."""
        state, _ = self.ending()
        if state == "interrupted":
            complete = (self.path / "train" / "DONE.json").exists()
            self.end("finished" if complete else "stopped")

    def ending(self) -> tuple[State, str | None]:
        """How it ended, and the error; where nothing readable says so, it was interrupted."""
        found = rundir.read_json(self.path / "state.json")
        if isinstance(found, dict) and found.get("state") in get_args(State):
            return found["state"], found.get("error")
        return "interrupted", None

    def ended_at(self) -> float:
        """When it was written down how it ended [s since 1970]; 0: it was not."""
        with contextlib.suppress(FileNotFoundError):
            return (self.path / "state.json").stat().st_mtime
        return 0.0

    def failure(self) -> Failure | None:
        """Why it failed; None: it has not."""
        found = rundir.read_json(self.path / "state.json")
        return _failure(found) if isinstance(found, dict) else None

    def costs(self) -> dict[str, float]:
        """What was estimated of one that is infeasible, by the names of costs."""
        found = rundir.read_json(self.path / "state.json")
        costs = found.get("costs") if isinstance(found, dict) else None
        return costs if isinstance(costs, dict) else {}

    def rungs(self) -> tuple[Rung, ...]:
        """What it scored so far; a line that is none is left out, and its rung scored again."""
        return tuple(_readable(rundir.read_jsonl(self.path / "scores.jsonl")))

    def read(self) -> Trial | None:
        """The trial; None: it has no readable trial.json, so that nobody knows what was tried."""
        made = self._made()
        if made is None:
            return None
        state, error = self.ending()
        return Trial(
            self.path.name,
            made["number"],
            made["params"],
            state,
            self.rungs(),
            error,
            self.failure(),
            costs=self.costs(),
        )

    def _made(self) -> dict[str, Any] | None:
        made = rundir.read_json(self.path / "trial.json")
        if made is None:
            return None
        match made:
            case {"number": int(number), "params": dict(params)}:
                if name_of(number, params) == self.path.name:
                    return dict(made)
        rundir.say_once(
            f"{self.path / 'trial.json'} does not say what {self.path.name} tried; it counts as missing."
        )
        return None


def _readable(lines: list[dict[str, Any]]) -> Iterator[Rung]:
    for line in lines:
        try:
            yield Rung.read(line)
        except (TypeError, ValueError):
            continue


def _failure(entry: dict[str, Any]) -> Failure | None:
    """Why something failed, as its record says; told from its error where that is older."""
    if entry.get("state") != "failed":
        return None
    written = Failure.read(entry.get("failure"))
    return written or failures.of_words(str(entry.get("error") or ""))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def name_of(number: int, params: Params) -> str:
    """Number and 8 hex digits of the parameters."""
    return f"{number:03d}-{rundir.digest(params)[:8]}"


def folder_of(study: Path, name: str) -> TrialFolder:
    """Where a trial of a study lies."""
    return TrialFolder(study / "trials" / name)


def folders(study: Path) -> list[TrialFolder]:
    """Those of all trials that were begun."""
    return [TrialFolder(path.parent) for path in sorted(study.glob("trials/*/trial.json"))]


def read(study: Path) -> list[Trial]:
    """All trials by number; one whose trial.json is damaged is named in a line and left out."""
    trials = [trial for folder in folders(study) if (trial := folder.read()) is not None]
    return sorted(trials, key=lambda trial: trial.number)
