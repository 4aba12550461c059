"""A study: Ray Tune decides which trial runs, where and how long; Optuna proposes; a trial is an ordinary run folder.

Nothing of Ray's own state is kept. A restarted study replays its trial folders, in order, into a fresh searcher and
scheduler: finished trials report their recorded scores at once, interrupted ones go on from their checkpoints.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from facefactory import UserError, rundir
from facefactory.config import key

METRIC, MODE = "kd_judge", "min"
Space = dict[str, dict[str, Any]]
Params = dict[str, Any]
Report = Callable[[dict[str, Any]], None]
TrialFunction = Callable[[str, Params, Report], None]  # folder, params, report(scores at a rung)
NODES_S = 120.0  # how long nodes of a cluster are waited for
KINDS = ("choice", "uniform", "log_uniform", "int")


@dataclass(frozen=True)
class Sweep:
    """Which architectures are tried, and for how long."""

    space: str = key("dcgan", "search space: a file of jobs/spaces/ or the path of your own")
    trials: int = key(8, "architectures tried", low=1, resumes=True)
    parallel: int = key(2, "trials (and finalists) that run at once", low=1, identity=False)
    sampler: Literal["tpe", "random", "grid"] = key("tpe", "how Optuna proposes; grid needs choices only")
    early_stopping: bool = key(True, "ASHA stops trials that are behind at a rung")
    min_kimg: float = key(4.0, "first rung, thousands of images", low=0.001)
    max_kimg: float = key(12.0, "last rung: the budget of a trial, thousands of images", low=0.001)
    reduction: int = key(3, "factor between rungs, and share of trials that goes on (1 of so many)", low=2)
    finalists: int = key(2, "best trials that go on to training.total_kimg", low=1, resumes=True)

    def rungs(self) -> list[float]:
        """Budgets at which trials are scored and compared [kimg].

        Raises:
            UserError: the last rung lies before the first.
        """
        if self.max_kimg < self.min_kimg:
            raise UserError(
                f"sweep.max_kimg={self.max_kimg:g} is below sweep.min_kimg={self.min_kimg:g}; give at least that much."
            )
        found = [self.min_kimg]
        while found[-1] * self.reduction < self.max_kimg * (1 - 1e-9):  # 0.7 * 3 < 2.1 in floats
            found.append(found[-1] * self.reduction)
        return sorted({*found, self.max_kimg})


def _drawable(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("when", {}), dict):
        return False
    kinds = [kind for kind in entry if kind != "when"]
    if len(kinds) != 1 or kinds[0] not in KINDS:
        return False
    kind, values = kinds[0], entry[kinds[0]]
    if kind == "choice" or not isinstance(values, list):
        return isinstance(values, list) and bool(values)
    number = int if kind == "int" else int | float
    if len(values) != 2 or not all(isinstance(value, number) for value in values):
        return False
    return bool(values[0] <= values[1] and (kind != "log_uniform" or values[0] > 0))


def check_space(space: Space, name: str) -> None:
    """Raise UserError for an entry that is not one of the known kinds, or a condition on something not drawn before it."""
    seen: list[str] = []
    for param, entry in space.items():
        if not _drawable(entry):
            raise UserError(
                f"space {name}: {param} is {entry!r}; allowed are {{choice: [a, b, …]}}, {{uniform: [low, high]}}, "
                "{log_uniform: [low, high]}, {int: [low, high]}, each with an optional when: {other.key: value}."
            )
        for other in entry.get("when", {}):
            if other not in seen:
                raise UserError(f"space {name}: {param} depends on {other}, which is not drawn before it; put {other} above it.")
        seen.append(param)


def _applies(entry: dict[str, Any], drawn: Params) -> bool:
    wanted = entry.get("when", {}).items()
    return all(drawn.get(other) in (value if isinstance(value, list) else [value]) for other, value in wanted)


def propose(trial: Any, space: Space) -> Params:
    """One point of a space, drawn from an Optuna trial: entries whose condition does not hold are left out."""
    drawn: Params = {}
    for name, entry in space.items():
        if not _applies(entry, drawn):
            continue
        if "choice" in entry:
            drawn[name] = trial.suggest_categorical(name, entry["choice"])
        elif "int" in entry:
            drawn[name] = trial.suggest_int(name, *entry["int"])
        else:
            log = "log_uniform" in entry
            drawn[name] = trial.suggest_float(name, *entry["log_uniform" if log else "uniform"], log=log)
    return drawn


def grid(space: Space) -> list[Params]:
    """All points of a space of choices, in order.

    Raises:
        UserError: the space has an entry that is no choice.
    """
    ranges = [name for name, entry in space.items() if "choice" not in entry]
    if ranges:
        raise UserError(f"sweep.sampler=grid needs choices only, but {', '.join(ranges)} has a range; use tpe or random.")
    points = []
    for values in itertools.product(*(entry["choice"] for entry in space.values())):
        point: Params = {}
        for (name, entry), value in zip(space.items(), values, strict=True):
            if _applies(entry, point):
                point[name] = value
        if point not in points:
            points.append(point)
    return points


def examples(space: Space, count: int = 16) -> Iterator[Params]:
    """Random points, for checking a space before anything starts."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(count):
        yield propose(study.ask(), space)


def trial_folders(folder: Path) -> list[Path]:
    """The folders of a study's trials, by number."""
    found = (path.parent for path in (folder / "trials").glob("*/trial.json"))
    return sorted(found, key=lambda path: int(path.name.partition("-")[0]))


@dataclass(frozen=True)
class Study:
    """What is searched, where, and on what: `threads` and `gpus` of one trial, `ray` the address of a cluster of its own."""

    folder: Path
    space: Space
    options: Sweep
    seed: int
    trial: TrialFunction
    threads: int
    gpus: float
    should_stop: Callable[[], bool]
    ray: str | None


def run(study: Study) -> list[dict[str, Any]]:
    """Run or continue a study; what `results` says of it."""
    before = [path.name for path in trial_folders(study.folder)]
    known = [rundir.read_json(study.folder / "trials" / name / "trial.json")["params"] for name in before]
    grids = study.options.sampler == "grid"
    planned = grid(study.space)[: study.options.trials] if grids else known
    wanted = len(planned) if grids else study.options.trials
    states = [one["state"] for one in results(study.folder, study.space)]
    if len(known) < wanted or any(state not in ("finished", "stopped") for state in states):
        _tune(study, planned[:wanted], wanted, [] if grids else before)
    return results(study.folder, study.space)


def _tune(study: Study, planned: list[Params], wanted: int, known: list[str]) -> None:
    import logging

    import optuna

    # Ray ≥ 2.60 switches token authentication on by itself and would keep one token in the home folder for all jobs
    os.environ.update(RAY_AUTH_MODE="token", RAY_USAGE_STATS_ENABLED="0", RAY_AIR_NEW_OUTPUT="0")
    os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", TUNE_DISABLE_SIGINT_HANDLER="1")
    if not study.ray:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)
    import ray
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    short = tempfile.mkdtemp(prefix="ff-", dir="/tmp" if os.path.isdir("/tmp") else None)  # socket paths end at 107 bytes
    cpus = study.options.parallel * study.threads
    own = {"num_cpus": cpus, "object_store_memory": 100 * 2**20, "include_dashboard": False, "_temp_dir": short}
    where: dict[str, Any] = {"address": study.ray} if study.ray else own
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    deadline = time.monotonic() + NODES_S
    while (found := ray.cluster_resources().get("CPU", 0)) < cpus and time.monotonic() < deadline:
        time.sleep(0.5)
    if found < cpus:
        print(f"sweep: only {found:g} of {cpus} CPUs came up; going on with them", file=sys.stderr, flush=True)
    rungs = study.options.rungs()
    # with a seed of its own for each continuation the sampler does not propose its first points again
    samplers = optuna.samplers.RandomSampler if study.options.sampler == "random" else optuna.samplers.TPESampler
    searcher = OptunaSearch(
        functools.partial(_point, space=study.space),
        metric=METRIC,
        mode=MODE,
        sampler=samplers(seed=study.seed * 1000 + len(known)),
        points_to_evaluate=planned or None,
    )
    asha = AsyncHyperBandScheduler("kimg", grace_period=rungs[0], max_t=rungs[-1], reduction_factor=study.options.reduction)
    trainable = tune.with_parameters(_trainable, study=str(study.folder), trial=study.trial, known=known)

    class Stop(tune.Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return study.should_stop()

    try:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": study.threads, "gpu": study.gpus}),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode=MODE,
                search_alg=searcher,
                scheduler=asha if study.options.early_stopping else FIFOScheduler(),
                num_samples=wanted,
                max_concurrent_trials=study.options.parallel,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=f"{short}/tune", verbose=0, callbacks=[_callback(study, wanted)], stop=Stop()),
        ).fit()
    finally:
        ray.shutdown()
        shutil.rmtree(short, ignore_errors=True)


def _point(proposed: Any, space: Space) -> Params:
    return {**propose(proposed, space), "number": proposed.number}


def trial_name(number: int, params: Params) -> str:
    """Number and 8 hex digits of the parameters."""
    from facefactory import config

    return f"{number:03d}-{config.digest(params)[:8]}"


def _number(proposed: int, name: str, known: list[str]) -> int:
    """A trial's number: that of its folder, if there is one; a kill may have left gaps between those."""
    numbers = [int(folder.partition("-")[0]) for folder in known]
    own = [number for number, folder in zip(numbers, known, strict=True) if folder.partition("-")[2] == name.partition("-")[2]]
    if own:
        return own[0]
    return max(proposed, proposed - len(known) + max(numbers, default=-1) + 1)


def _trainable(point: dict[str, Any], study: str, trial: TrialFunction, known: list[str]) -> None:
    """In a Ray worker: report what the folder has recorded, then let the trial go on where it stands."""
    from ray import tune

    number = _number(point.pop("number"), trial_name(0, point), known)
    folder = Path(study) / "trials" / trial_name(number, point)
    written = rundir.read_json(folder / "trial.json")
    if written is None:
        rundir.write_json(folder / "trial.json", {"number": number, "params": point})
    recorded = rundir.read_jsonl(folder / "scores.jsonl")
    for line in recorded:
        tune.report({**line, "trial": folder.name})
    if (rundir.read_json(folder / "state.json") or {}).get("state") in ("finished", "stopped"):
        return

    def report(scores: dict[str, Any]) -> None:
        with open(folder / "scores.jsonl", "a") as stream:
            stream.write(json.dumps(scores) + "\n")
        tune.report({**scores, "trial": folder.name})

    trial(str(folder), point, report)


def _callback(study: Study, wanted: int) -> Any:
    """Writes down how trials end (a trial that ASHA stops is not asked) and says so in a line."""
    from ray import tune

    class Verdicts(tune.Callback):
        ended = 0

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
            print(
                f"sweep: trial {result['trial']} at {result['kimg']:g} kimg: {METRIC} {result[METRIC]:.4g}",
                file=sys.stderr,
                flush=True,
            )

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            name = trial.last_result.get("trial")
            if name is None or study.should_stop():
                return
            self.ended += 1
            path = study.folder / "trials" / name / "state.json"
            if not path.exists():
                complete = (study.folder / "trials" / name / "train" / "DONE.json").exists()
                rundir.write_json(path, {"state": "finished" if complete else "stopped"})
            print(f"sweep: {self.ended} of {wanted} trials ended", file=sys.stderr, flush=True)

    return Verdicts()


def results(folder: Path, space: Space) -> list[dict[str, Any]]:
    """Name, number, params, Optuna distributions, state, scores and error of every trial, by number."""
    import optuna

    found = []
    for path in trial_folders(folder):
        made, state = rundir.read_json(path / "trial.json"), rundir.read_json(path / "state.json") or {"state": "interrupted"}
        fixed = optuna.trial.FixedTrial(made["params"])
        propose(fixed, space)
        distributions = {name: optuna.distributions.distribution_to_json(kind) for name, kind in fixed.distributions.items()}
        scores = rundir.read_jsonl(path / "scores.jsonl")
        found.append({"name": path.name, **made, "distributions": distributions, "scores": scores, "error": None, **state})
    return found


def best(trials: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The trials that got furthest, by score at their last rung."""
    scored = [one for one in trials if one["scores"] and one["state"] != "failed"]
    return sorted(scored, key=lambda one: (-one["scores"][-1]["kimg"], one["scores"][-1][METRIC]))[:count]


def budget(options: Sweep) -> dict[str, Any]:
    """What the results say of the study itself."""
    return {"metric": METRIC, "mode": MODE, "sampler": options.sampler, "rungs_kimg": options.rungs()} | {
        "options": dataclasses.asdict(options)
    }
