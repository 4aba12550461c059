"""A study: Ray Tune decides which trial runs, where and how long; Optuna proposes; a trial is an ordinary run folder.

Nothing of Ray's own state is kept. A restarted study replays its trial folders, in order, into a fresh searcher and
scheduler: finished trials report their recorded scores at once, interrupted ones go on from their checkpoints.
"""

import dataclasses
import functools
import logging
import math
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from facefactory import Failed, UserError, say, scratch, surroundings, trials
from facefactory.config import key
from facefactory.results import Goal
from facefactory.trials import OVER, Params, Rung, Trial, TrialFolder, folder_of, name_of

Space = dict[str, dict[str, Any]]
Report = Callable[[Rung], None]
TrialFunction = Callable[[TrialFolder, Params, Report], None]
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
                "{log_uniform: [low, high]}, {int: [low, high]}, {times: [0.5, 1, …]} of the run's own number, "
                "each with an optional when: {other.key: value}."
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


def run(study: Study) -> list[Trial]:
    """Run or continue a study; what `results` says of it."""
    before = results(study.folder, study.space)
    wanted = study.options.trials
    planned = [trial.params for trial in before]
    known = [trial.number for trial in before]
    if study.options.sampler == "grid":
        planned = grid(study.space)[:wanted]
        known = []
        wanted = len(planned)
    if len(before) < wanted or any(trial.state not in OVER for trial in before):
        _tune(study, planned[:wanted], wanted, known)
    return results(study.folder, study.space)


def _tune(study: Study, planned: list[Params], wanted: int, known: list[int]) -> None:
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
    options = study.options
    rungs = options.rungs()
    cpus = options.parallel * study.threads
    aim: dict[str, Any] = {
        "metric": study.goal.metric,
        "mode": "min" if study.goal.better == "lower" else "max",
    }

    # How the next trial is found
    samplers = optuna.samplers.TPESampler
    if options.sampler == "random":
        samplers = optuna.samplers.RandomSampler
    # with a seed of its own for each continuation the sampler does not propose its first points again
    sampler = samplers(seed=study.seed * 1000 + len(known))
    point = functools.partial(_point, space=study.space)
    searcher = OptunaSearch(point, **aim, sampler=sampler, points_to_evaluate=planned or None)

    # Which trials go on
    scheduler: Any = FIFOScheduler()
    if options.early_stopping:
        scheduler = AsyncHyperBandScheduler(
            "kimg", grace_period=rungs[0], max_t=rungs[-1], reduction_factor=options.reduction
        )

    # A folder that no other user can reach: Ray opens its own, below it, to everybody
    private = Path(scratch.name())
    scratch.sweep(private.parent)
    lock = scratch.hold(private)
    try:
        # Ray: the job's, or one of this process alone, whatever runs on this machine
        cluster: dict[str, Any] = {"address": study.ray}
        if not study.ray:
            cluster = {
                "address": "local",
                "num_cpus": cpus,
                "object_store_memory": 100 * 2**20,
                "include_dashboard": False,
                "_temp_dir": f"{private}/ray",
            }
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **cluster)
        gpus = _resources(ray.cluster_resources, study, cpus)

        # The search
        trainable = tune.with_parameters(
            _trainable, study=study.folder, trial=study.trial, known=known
        )
        watch = _watch(study, wanted)
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": study.threads, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                **aim,
                num_samples=wanted,
                max_concurrent_trials=options.parallel,
                search_alg=searcher,
                scheduler=scheduler,
                reuse_actors=True,
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


def _number(proposed: int, known: list[int]) -> int:
    """A trial's number: its own, if it is replayed (known ones are proposed first), else the next free one."""
    if proposed < len(known):
        return known[proposed]
    return proposed - len(known) + max(known, default=-1) + 1  # a kill may have left gaps


def _trainable(point: dict[str, Any], study: Path, trial: TrialFunction, known: list[int]) -> None:
    """In a Ray worker: report what the folder has recorded, then let the trial go on where it stands."""
    from ray import tune

    number = _number(point.pop("number"), known)
    folder = folder_of(study, name_of(number, point))
    folder.begin(number, point)

    def tell(rung: Rung) -> None:
        line = rung.line()
        numbers = {name: math.nan if value is None else value for name, value in line.items()}
        tune.report({**numbers, "trial": folder.path.name})

    def report(rung: Rung) -> None:
        folder.add(rung)
        tell(rung)

    for rung in folder.rungs():
        tell(rung)
    state, _ = folder.ending()
    if state not in OVER:
        trial(folder, point, report)


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
            folder_of(study.folder, name).close()
            say(f"sweep: {self.ended} of {wanted} trials ended")

    return Watch()


def results(study: Path, space: Space) -> list[Trial]:
    """Every trial by number, with the distributions that its parameters were drawn from.

    One that cannot be read, or that was not drawn from this space, is named in a line and left out.
    """
    import optuna

    found = []
    for trial in trials.read(study):
        drawn = optuna.trial.FixedTrial(trial.params)
        try:
            propose(drawn, space)
        except ValueError:
            say(f"sweep: trial {trial.name} was not drawn from this space; it counts as missing.")
            continue
        texts = {
            name: optuna.distributions.distribution_to_json(kind)
            for name, kind in drawn.distributions.items()
        }
        found.append(dataclasses.replace(trial, distributions=texts))
    return found


def best(tried: list[Trial], count: int, goal: Goal) -> list[Trial]:
    """The trials that got furthest, by score at their last rung."""
    sign = 1 if goal.better == "lower" else -1
    placed = []
    for trial in tried:
        last = trial.last(goal.metric)
        if last is not None and trial.state != "failed":
            kimg, score = last
            placed.append((-kimg, sign * score, trial))
    placed.sort(key=lambda place: place[:2])
    return [trial for *_, trial in placed[:count]]
