"""The facts of a run folder, computed from its files: what every section of the page begins with."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from facefactory import trials
from facefactory.report import claims, scores
from facefactory.results import Better, Goal
from facefactory.rundir import (
    read_json,
    read_metrics,
    read_results,
    stages_of,
)
from facefactory.trials import Finalist, Trial

VERSION = 2  # of report.json; its schema is that of all sections' data together
T = TypeVar("T")
Kind = Literal["sweep", "generative", "classifier", "pictures"]
EMPTY: dict[str, Any] = {
    "kimg": None,
    "memorisation_ratio": None,
    "scores": [],
    "protocols": {},
    "sights": {},
    "labels": {},
}
EMPTY |= {"copied": [], "absent": {}, "not_staged": {}, "goal": {}}
EMPTY |= {"snapshot": "last", "selection": None}
EMPTY |= {"strips": [], "reconstructions": [], "priors": [], "priors_absent": {}}


@dataclass(frozen=True)
class Head:
    """What report.json begins with, before what each section tells."""

    version: int
    name: str
    kind: Kind
    written: str  # when, as ISO 8601
    metric: str
    better: Better
    networks: list[str]  # that were trained or tried
    config: dict[str, Any]
    sweep: dict[str, Any]  # results.json of the search
    runs: list[dict[str, Any]]
    unlike_protocols: dict[str, list[Any]]


@dataclass(frozen=True)
class Facts:
    """What is known of a run folder; the sections read it, and none changes it."""

    folder: Path
    name: str
    kind: Kind
    goal: Goal  # by which runs and trials are compared
    config: dict[str, Any]
    sweep: dict[str, Any]  # results.json of the search
    judge: dict[str, Any]
    runs: list[dict[str, Any]]  # finalists, best first, or the one run
    trials: list[Trial]
    searching: bool  # the trials are those found so far: the search has not ended
    unlike: dict[str, list[Any]]  # why runs are not ranked: field of the protocol -> values
    repeat: dict[str, str]  # name of a trial or run -> the command that repeats it
    logged: list[dict[str, Any]]  # the metric lines of all runs, each with its `run`
    beside: Path | None = None  # a run whose claims stand beside
    written: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def metric(self) -> str:
        """The score that ranks."""
        return self.goal.metric

    @property
    def better(self) -> Better:
        """Which way it ranks."""
        return self.goal.better

    @property
    def sweeping(self) -> bool:
        """Whether it is about a search."""
        return self.kind == "sweep"

    @property
    def trained(self) -> bool:
        """Whether something was trained."""
        return self.kind != "pictures"

    @property
    def networks(self) -> list[str]:
        """Names of the models that were trained or tried."""
        own = (self.config.get("model") or {}).get("name")
        tried = {trial.params.get("model.name", own) for trial in self.trials}
        return sorted(name for name in tried or {own} if name)

    @property
    def sign(self) -> int:
        """What a score is multiplied by so that the least is the best."""
        return 1 if self.better == "lower" else -1

    def head(self) -> Head:
        """What report.json begins with."""
        return Head(
            version=VERSION,
            name=self.name,
            kind=self.kind,
            written=self.written.isoformat(timespec="seconds"),
            metric=self.metric,
            better=self.better,
            networks=self.networks,
            config=self.config,
            sweep=self.sweep,
            runs=self.runs,
            unlike_protocols=self.unlike,
        )


def rounded(value: Any) -> str:
    """A value for readers: numbers with 3 significant digits, an en dash for what is not there."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {rounded(entry)}" for name, entry in value.items())
    return ", ".join(map(rounded, value)) if isinstance(value, list | tuple) else str(value)


def span(seconds: float | None) -> str:
    """A time for readers, e.g. `1.5 h`, `12 min`, `40 s`."""
    if seconds is None:
        return "–"
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def finite(value: Any) -> Any:
    """The value as strict JSON can hold it: NaN and infinities become None, dates become text."""
    return json.loads(json.dumps(value, default=str), parse_constant=lambda constant: None)


def text_of(path: Path) -> str:
    """The text of a file; empty where there is none."""
    return path.read_text(errors="replace") if path.is_file() else ""


def metrics(train: Path) -> list[dict[str, Any]]:
    """The metric lines of a training: from where an attempt began again, older attempts' lines are dropped."""
    kept: list[dict[str, Any]] = []
    for path in sorted(
        train.glob("metrics-*.jsonl"), key=lambda path: int(path.stem.rpartition("-")[2])
    ):
        if lines := read_metrics(path):
            kept = [line for line in kept if line["kimg"] < lines[0]["kimg"]] + lines
    return kept


def tried(sweep: dict[str, Any]) -> list[Trial]:
    """The trials of a search, as its results.json holds them; entries that are none are left out."""
    return readable(Trial.read, sweep.get("trials"))


def readable(read: Callable[[dict[str, Any]], T], entries: Any) -> list[T]:
    """The records of some entries; those that a damaged or foreign file holds are left out."""
    found = []
    for entry in entries if isinstance(entries, list) else []:
        try:
            found.append(read(entry))
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return found


def gather(folder: Path, repeat: dict[str, str], beside: Path | None = None) -> Facts:
    """All facts of a run folder: the stages' results as they wrote them, and what follows from them."""

    def results(stage: str) -> Any:
        return finite(read_results(folder / stage))

    config = config_of(folder)
    sweep = results("sweep")
    finalists = results("finalists")
    sweeping = "sweep" in stages_of(folder) or bool(sweep or finalists)
    searching = sweeping and not sweep
    found = trials.read(folder / "sweep") if searching else tried(sweep)

    # the runs that it is about: the finalists of a sweep, else the folder itself
    entries = [{"name": folder.name, "folder": ".", "state": ""}]
    if sweeping:
        ended = readable(Finalist.read, finalists.get("finalists"))
        entries = [dataclasses.asdict(finalist) for finalist in ended]
    runs = [_run(folder, entry) for entry in entries]

    # by what they are compared
    goal = goal_of(folder, config, sweep, runs)
    for run in runs:
        score = scores.scores_of(run).get(goal.metric)
        run |= {"score": score and score.value, "interval": score and [score.low, score.high]}
        run["scale"] = score.scale if score else {}
        run["reconstructed"] = scores.reconstruction_rows(run)
        run["drawn"] = scores.prior_rows(run)
    unlike = scores.unlike(runs, goal.metric)
    if not unlike:
        sign = 1 if goal.better == "lower" else -1
        runs.sort(key=lambda run: (run["score"] is None, sign * (run["score"] or 0)))
    return Facts(
        folder=folder,
        name=folder.name,
        kind=_kind(config, sweeping, runs),
        goal=goal,
        config=config,
        sweep=sweep,
        judge=results("judge"),
        runs=runs,
        trials=found,
        searching=searching,
        unlike=unlike,
        repeat=repeat,
        logged=[
            {"run": run["name"], **line}
            for run in runs
            for line in metrics(folder / run["folder"] / "train")
        ],
        beside=beside,
    )


def config_of(folder: Path) -> dict[str, Any]:
    """The config of a run; empty where the file is missing or no YAML of keys."""
    try:
        config = finite(yaml.safe_load(text_of(folder / "config.yaml")))
    except yaml.YAMLError:
        return {}
    return config if isinstance(config, dict) else {}


def _run(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """What the stages left of one run."""
    own = folder / entry["folder"]
    evaluated = finite(read_results(own / "evaluate"))
    latent = finite(read_results(own / "interpret"))
    selection = finite(read_results(own / "train")).get("selection")
    lines = metrics(own / "train")
    last = lines[-1] if lines else {}
    known = claims.read(latent)
    more = {
        "latent": latent,
        "health": last.get("health", []),
        "setbacks": last.get("setbacks", 0),
        "selection": selection,
        "claims": claims.sentences(known) if known else [],
    }
    return {**EMPTY, **evaluated, **entry, **more}


def _kind(config: dict[str, Any], sweeping: bool, runs: list[dict[str, Any]]) -> Kind:
    scoring = (config.get("evaluation") or {}).get("scoring")
    if sweeping:
        return "sweep"
    if scoring == "classifier" or runs[0]["labels"]:
        return "classifier"
    return "pictures" if scoring == "pictures" else "generative"


def goal_of(
    folder: Path, config: dict[str, Any], sweep: dict[str, Any], runs: list[dict[str, Any]]
) -> Goal:
    """The score that ranks, and which way: what the search or the evaluation wrote, else what the config names."""
    if "metric" in sweep:
        return Goal(sweep["metric"], sweep.get("better", "lower"))
    searched = read_json(folder / "sweep" / "goal.json")
    written = next((run["goal"] for run in runs if run["goal"]), searched)
    named = (config.get("sweep") or {}).get("goal") or "score"
    return Goal(**written) if written else Goal(named, "lower")
