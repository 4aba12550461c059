"""A study: Ray Tune decides which trial runs, where and how long; Optuna proposes; a trial is an ordinary run folder.

Nothing of Ray's own state is kept. A restarted study replays its trial folders, in order, into a fresh searcher and
scheduler: finished trials report their recorded scores at once, interrupted ones go on from their checkpoints.
"""

import functools
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from facefactory import Failed, UserError, config, rundir, say, scratch, surroundings
from facefactory.config import key
from facefactory.results import Goal

Space = dict[str, dict[str, Any]]
Params = dict[str, Any]
Report = Callable[[dict[str, Any]], None]
TrialFunction = Callable[[str, Params, Report], None]  # folder, params, report(scores at a rung)
NODES_S = 120.0  # how long nodes of a cluster are waited for


@dataclass(frozen=True)
class Sweep:
    """Which architectures are tried, and for how long."""

    space: str = key("dcgan", "search space: a file of jobs/spaces/ or the path of your own")
    trials: int = key(8, "architectures tried", low=1, resumes=True)
    parallel: int = key(2, "trials (and finalists) that run at once", low=1, identity=False)
    sampler: Literal["tpe", "random", "grid"] = key(
        "tpe", "how Optuna proposes; grid needs choices only"
    )
    early_stopping: bool = key(True, "ASHA stops trials that are behind at a rung")
    min_kimg: float = key(4.0, "first rung, thousands of images", low=0.001)
    max_kimg: float = key(12.0, "last rung: the budget of a trial, thousands of images", low=0.001)
    reduction: int = key(
        3, "factor between rungs, and share of trials that goes on (1 of so many)", low=2
    )
    goal: str | None = key(
        None, "score by which trials are compared; default: that of evaluation.protocol"
    )
    finalists: int = key(2, "best trials that go on to training.total_kimg", low=1, resumes=True)

    def rungs(self) -> list[float]:
        """Budgets at which trials are scored and compared [kimg]; UserError: the last rung lies before the first."""
        if self.max_kimg < self.min_kimg:
            raise UserError(
                f"sweep.max_kimg={self.max_kimg:g} is below sweep.min_kimg={self.min_kimg:g}; give at least as much."
            )
        found = [self.min_kimg]
        while found[-1] * self.reduction < self.max_kimg * (1 - 1e-9):  # 0.7 * 3 < 2.1 in floats
            found.append(found[-1] * self.reduction)
        return sorted({*found, self.max_kimg})


def draw(trial: Any, name: str, entry: Any) -> Any:
    """A value for an entry of a space from an Optuna trial, whether its condition holds or not.

    ValueError, TypeError or AttributeError: nothing can be drawn from such an entry.
    """
    ((kind, values),) = (item for item in entry.items() if item[0] != "when")
    match kind, values:
        case "choice", [*_]:
            return trial.suggest_categorical(name, values)
        case "int", [int(low), int(high)]:
            return trial.suggest_int(name, low, high)
        case "uniform" | "log_uniform", [int() | float() as low, int() | float() as high] if (
            low <= high
        ):
            return trial.suggest_float(name, low, high, log=kind == "log_uniform")
    raise ValueError(kind)


def check_space(space: Space, name: str) -> None:
    """Raise UserError for an entry that cannot be drawn from, or a condition on something not drawn before it."""
    trial, seen = _random_study().ask(), set[str]()
    for param, entry in space.items():
        try:
            draw(trial, param, entry)
            conditions = entry.get("when", {}).keys()
        except (AttributeError, TypeError, ValueError):
            raise UserError(
                f"space {name}: {param} is {entry!r}; allowed are {{choice: [a, b, …]}}, {{uniform: [low, high]}}, "
                "{log_uniform: [low, high]}, {int: [low, high]}, each with an optional when: {other.key: value}."
            ) from None
        for other in sorted(conditions - seen):
            raise UserError(
                f"space {name}: {param} depends on {other}, which is not drawn before it; put {other} above it."
            )
        seen.add(param)


def _applies(entry: dict[str, Any], drawn: Params) -> bool:
    wanted = entry.get("when", {}).items()
    return all(
        drawn.get(other) in (value if isinstance(value, list) else [value])
        for other, value in wanted
    )


def propose(trial: Any, space: Space) -> Params:
    """One point of a space, drawn from an Optuna trial: entries whose condition does not hold are left out."""
    drawn: Params = {}
    for name, entry in space.items():
        if _applies(entry, drawn):
            drawn[name] = draw(trial, name, entry)
    return drawn


def grid(space: Space) -> list[Params]:
    """All points of a space of choices, in order; UserError: the space has an entry that is no choice."""
    ranges = [name for name, entry in space.items() if "choice" not in entry]
    if ranges:
        raise UserError(
            f"sweep.sampler=grid needs choices only, but {', '.join(ranges)} has a range; use tpe or random."
        )
    points: list[Params] = [{}]
    for name, entry in space.items():
        more = [{name: value} for value in entry["choice"]]
        points = [
            {**point, **one}
            for point in points
            for one in (more if _applies(entry, point) else [{}])
        ]
    return [point for number, point in enumerate(points) if point not in points[:number]]


def _random_study() -> Any:
    """An Optuna study whose trials draw random points, always the same."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def examples(space: Space, count: int = 16) -> list[Params]:
    """Random points, for checking a space before anything starts."""
    study = _random_study()
    return [propose(study.ask(), space) for _ in range(count)]


@dataclass(frozen=True)
class Study:
    """What is searched, where, and on what: `threads` and `gpus` of one trial, `ray` the address of a cluster of its own.

    `needs_gpus`: without a GPU no trial may run.
    """

    folder: Path
    space: Space
    options: Sweep
    goal: Goal
    seed: int
    trial: TrialFunction
    threads: int
    gpus: float
    needs_gpus: bool
    should_stop: Callable[[], bool]
    ray: str | None


def run(study: Study) -> list[dict[str, Any]]:
    """Run or continue a study; what `results` says of it."""
    before, wanted = results(study.folder, study.space), study.options.trials
    planned, known = [one["params"] for one in before], [one["name"] for one in before]
    if study.options.sampler == "grid":
        planned, known = grid(study.space)[:wanted], []
        wanted = len(planned)
    if len(before) < wanted or any(one["state"] not in ("finished", "stopped") for one in before):
        _tune(study, planned[:wanted], wanted, known)
    return results(study.folder, study.space)


def _tune(study: Study, planned: list[Params], wanted: int, known: list[str]) -> None:
    # Ray reads these when it is imported, and its workers inherit them
    os.environ.update(surroundings.RAY)
    if not study.ray:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)
    import optuna
    import ray
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options, rungs, cpus = (
        study.options,
        study.options.rungs(),
        study.options.parallel * study.threads,
    )

    # How the next trial is found, and which go on
    samplers = (
        optuna.samplers.RandomSampler
        if options.sampler == "random"
        else optuna.samplers.TPESampler
    )
    # with a seed of its own for each continuation the sampler does not propose its first points again
    sampler, point = (
        samplers(seed=study.seed * 1000 + len(known)),
        functools.partial(_point, space=study.space),
    )
    aim: dict[str, Any] = {
        "metric": study.goal.metric,
        "mode": "min" if study.goal.better == "lower" else "max",
    }
    searcher = OptunaSearch(point, **aim, sampler=sampler, points_to_evaluate=planned or None)
    asha = AsyncHyperBandScheduler(
        "kimg", grace_period=rungs[0], max_t=rungs[-1], reduction_factor=options.reduction
    )
    scheduler = asha if options.early_stopping else FIFOScheduler()

    # A folder that no other user can reach: Ray opens its own, below it, to everybody
    private = Path(scratch.name())
    scratch.sweep(private.parent)
    lock = scratch.hold(private)
    try:
        # Ray: the job's, or one of this process alone, whatever runs on this machine
        ours: dict[str, Any] = {
            "num_cpus": cpus,
            "object_store_memory": 100 * 2**20,
            "include_dashboard": False,
        }
        ours |= {"address": "local", "_temp_dir": f"{private}/ray"}
        ray.init(
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({"address": study.ray} if study.ray else ours),
        )
        gpus = _resources(ray.cluster_resources, study, cpus)

        # The search
        trainable = tune.with_parameters(
            _trainable, study=str(study.folder), trial=study.trial, known=known
        )
        watch, amount = (
            _watch(study, wanted),
            {"num_samples": wanted, "max_concurrent_trials": options.parallel},
        )
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": study.threads, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                **aim, **amount, search_alg=searcher, scheduler=scheduler, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                storage_path=f"{private}/tune", verbose=0, callbacks=[watch], stop=watch
            ),
        ).fit()
    finally:
        ray.shutdown()
        shutil.rmtree(private, ignore_errors=True)
        os.close(lock)


def _resources(resources: Callable[[], dict[str, float]], study: Study, cpus: int) -> float:
    """Wait for the CPUs of all nodes; the GPUs that a trial can have.

    Failed: a GPU was asked for by name and Ray sees none, so that no trial could ever start.
    """
    deadline = time.monotonic() + NODES_S
    while (
        (there := resources()).get("CPU", 0) < cpus
        and time.monotonic() < deadline
        and not study.should_stop()
    ):
        time.sleep(0.5)
    if there.get("CPU", 0) < cpus:
        say(f"sweep: only {there.get('CPU', 0):g} of {cpus} CPUs came up; going on with them")
    if study.gpus and there.get("GPU", 0) < study.gpus:
        if study.needs_gpus:
            raise Failed(
                "training.device=cuda, but Ray sees no GPU here; check nvidia-smi, or give training.device=cpu."
            )
        say("sweep: Ray sees no GPU here; the trials run on CPUs")
        return 0.0
    return study.gpus


def _point(proposed: Any, space: Space) -> Params:
    return {**propose(proposed, space), "number": proposed.number}


def trial_name(number: int, params: Params) -> str:
    """Number and 8 hex digits of the parameters."""
    return f"{number:03d}-{config.digest(params)[:8]}"


def _number(proposed: int, known: list[str]) -> int:
    """A trial's number: that of its folder, if it is replayed (known ones are proposed first), else the next free one."""
    numbers = [int(folder.partition("-")[0]) for folder in known]  # a kill may have left gaps
    return (
        numbers[proposed]
        if proposed < len(known)
        else proposed - len(known) + max(numbers, default=-1) + 1
    )


def _trainable(point: dict[str, Any], study: str, trial: TrialFunction, known: list[str]) -> None:
    """In a Ray worker: report what the folder has recorded, then let the trial go on where it stands."""
    from ray import tune

    number = _number(point.pop("number"), known)
    folder = Path(study) / "trials" / trial_name(number, point)
    if not (folder / "trial.json").exists():
        rundir.write_json(folder / "trial.json", {"number": number, "params": point})
    for line in rundir.read_jsonl(folder / "scores.jsonl"):
        tune.report({**line, "trial": folder.name})
    if (rundir.read_json(folder / "state.json") or {}).get("state") in ("finished", "stopped"):
        return

    def report(scores: dict[str, Any]) -> None:
        rundir.append_json(folder / "scores.jsonl", scores)
        tune.report({**scores, "trial": folder.name})

    trial(str(folder), point, report)


def _watch(study: Study, wanted: int) -> Any:
    """Stops Tune when asked to; writes down how trials end (a trial that ASHA stops is not asked) and says so in a line."""
    from ray import tune

    class Watch(tune.Callback, tune.Stopper):
        ended = 0

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return study.should_stop()

        def on_trial_result(
            self,
            iteration: int,
            trials: list[Any],
            trial: Any,
            result: dict[str, Any],
            **info: Any,
        ) -> None:
            metric = study.goal.metric
            say(
                f"sweep: trial {result['trial']} at {result['kimg']:g} kimg: {metric} {result[metric]:.4g}"
            )

        def on_trial_complete(
            self, iteration: int, trials: list[Any], trial: Any, **info: Any
        ) -> None:
            name = trial.last_result.get("trial")
            if name is None or study.should_stop():
                return
            self.ended += 1
            path = study.folder / "trials" / name
            if not (path / "state.json").exists():
                complete = (path / "train" / "DONE.json").exists()
                rundir.write_json(
                    path / "state.json", {"state": "finished" if complete else "stopped"}
                )
            say(f"sweep: {self.ended} of {wanted} trials ended")

    return Watch()


def results(folder: Path, space: Space) -> list[dict[str, Any]]:
    """Name, number, params, Optuna distributions, state, scores and error of every trial, by number."""
    import optuna

    found, written = (
        [],
        [
            (rundir.read_json(path), path.parent)
            for path in (folder / "trials").glob("*/trial.json")
        ],
    )
    for made, path in sorted(written, key=lambda one: one[0]["number"]):
        state = rundir.read_json(path / "state.json") or {"state": "interrupted"}
        fixed = optuna.trial.FixedTrial(made["params"])
        propose(fixed, space)
        distributions = {
            name: optuna.distributions.distribution_to_json(kind)
            for name, kind in fixed.distributions.items()
        }
        scores = rundir.read_jsonl(path / "scores.jsonl")
        found.append(
            {
                "name": path.name,
                **made,
                "distributions": distributions,
                "scores": scores,
                "error": None,
                **state,
            }
        )
    return found


def best(trials: list[dict[str, Any]], count: int, goal: Goal) -> list[dict[str, Any]]:
    """The trials that got furthest, by score at their last rung."""
    scored = [one for one in trials if one["scores"] and one["state"] != "failed"]
    sign = 1 if goal.better == "lower" else -1
    return sorted(
        scored, key=lambda one: (-one["scores"][-1]["kimg"], sign * one["scores"][-1][goal.metric])
    )[:count]
