"""Trials of a search: what is known of one, and its folder; the one place that knows their keys and files.

`trial.json` number and parameters · `scores.jsonl` a line a rung · `state.json` how it ended, once it has · and what
any run folder has, of its training.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from facefactory import failures, rundir
from facefactory.failures import Failure

Params = dict[str, Any]  # dotted config key -> value
State = Literal["finished", "stopped", "failed", "interrupted"]
OVER: tuple[State, ...] = ("finished", "stopped")  # the same command does not take these up again


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

    def end(self, state: State, error: str | None = None, failure: Failure | None = None) -> None:
        """Write down how it ended."""
        why: dict[str, Any] = {} if error is None else {"error": error}
        if failure is not None:
            why["failure"] = dataclasses.asdict(failure)
        rundir.write_json(self.path / "state.json", {"state": state, **why})

    def take_up(self) -> None:
        """It has not ended any more."""
        (self.path / "state.json").unlink(missing_ok=True)

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

    def failure(self) -> Failure | None:
        """Why it failed; None: it has not."""
        found = rundir.read_json(self.path / "state.json")
        return _failure(found) if isinstance(found, dict) else None

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
