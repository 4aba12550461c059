"""The folders of a search's trials: the one place that knows which files lie there.

`trial.json` number and parameters · `scores.jsonl` a line a rung · `state.json` how it ended, once it has · and what
any run folder has, of its training.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from facefactory import config, rundir, say
from facefactory.results import Rung, State, Trial

Params = dict[str, Any]
OVER: tuple[State, ...] = ("finished", "stopped")  # the same command does not take these up again


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

    def end(self, state: State, error: str | None = None) -> None:
        """Write down how it ended."""
        why = {} if error is None else {"error": error}
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

    def rungs(self) -> tuple[Rung, ...]:
        """What it scored so far; a line that is none is left out, and its rung scored again."""
        return tuple(_readable(rundir.read_jsonl(self.path / "scores.jsonl")))

    def read(self) -> Trial | None:
        """The trial; None: it has no readable trial.json, so that nobody knows what was tried."""
        made = self._made()
        if made is None:
            return None
        state, error = self.ending()
        return Trial(self.path.name, made["number"], made["params"], state, self.rungs(), error)

    def _made(self) -> dict[str, Any] | None:
        made = rundir.read_json(self.path / "trial.json")
        if made is None:
            return None
        match made:
            case {"number": int(number), "params": dict(params)}:
                if name_of(number, params) == self.path.name:
                    return dict(made)
        _say_once(
            f"{self.path / 'trial.json'} does not say what {self.path.name} tried; it counts as missing."
        )
        return None


@functools.cache
def _say_once(text: str) -> None:
    say(text)


def _readable(lines: list[dict[str, Any]]) -> Iterator[Rung]:
    for line in lines:
        try:
            yield Rung.read(line)
        except (TypeError, ValueError):
            continue


def name_of(number: int, params: Params) -> str:
    """Number and 8 hex digits of the parameters."""
    return f"{number:03d}-{config.digest(params)[:8]}"


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
