"""Ray Tune decides which trial runs, where and how long, in one allocation: on this machine, or over a Slurm job's nodes."""

import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from facefactory import Failed, registry, say, scratch, surroundings
from facefactory.search.engines import Engine
from facefactory.search.proposals import Proposal, Proposals
from facefactory.search.schedulers import Scheduler
from facefactory.search.study import Study, TrialFunction
from facefactory.trials import OVER, Rung, folder_of, name_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
NODES_S = 120.0  # how long nodes of a cluster are waited for


class Component(Engine):
    """One Ray, in which all trials of the search run."""

    def search(self, study: Study, proposals: Proposals, wanted: int) -> None:
        """Run them under Ray Tune."""
        _tune(study, proposals, wanted)


def _tune(study: Study, proposals: Proposals, wanted: int) -> None:
    # Ray reads these when it is imported, and its workers inherit them
    os.environ.update(surroundings.RAY)
    if not study.ray:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)
    import ray
    from ray import tune

    options = study.options.resolved()
    cpus = options.parallel * study.threads
    aim: dict[str, Any] = {
        "metric": study.goal.metric,
        "mode": "min" if study.goal.better == "lower" else "max",
    }

    # Which trials go on
    scheduler: Scheduler = registry.build("search.schedulers", {"name": options.scheduler})

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
        with _own_signals():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **cluster)
        gpus = _resources(ray.cluster_resources, study, cpus)

        # The search
        trainable = tune.with_parameters(_trainable, study=study.folder, trial=study.trial)
        searcher = _searcher(proposals, study.goal.metric)
        watch = _watch(study, wanted)
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": study.threads, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                **aim,
                num_samples=wanted,
                max_concurrent_trials=options.parallel,
                search_alg=searcher,
                scheduler=scheduler.ray(options.rungs(), options.reduction),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=f"{private}/tune", verbose=0, callbacks=[watch], stop=watch
            ),
        ).fit()
        if searcher.failure is not None:
            raise searcher.failure
    finally:
        ray.shutdown()
        shutil.rmtree(private, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what signals do here: Ray would end this process at SIGTERM, with nothing saved and code 1."""
    kept = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


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
    if 0 < there.get("GPU", 0) < study.gpus:
        raise Failed(
            f"sweep.gpus_per_trial={study.gpus:g}, but Ray sees {there['GPU']:g} GPUs here: no trial could start; give fewer."
        )
    if study.gpus and there.get("GPU", 0) < study.gpus:
        if study.needs_gpus:
            raise Failed(
                "training.device=cuda, but Ray sees no GPU here; check nvidia-smi, or give training.device=cpu."
            )
        say("sweep: Ray sees no GPU here; the trials run on CPUs")
        return 0.0
    return study.gpus


def _searcher(proposals: Proposals, metric: str) -> Any:
    """What Ray Tune asks for points, and tells how they did."""
    from ray.tune.result import TRAINING_ITERATION
    from ray.tune.search import Searcher

    class Search(Searcher):
        failure: Failed | None = None

        def __init__(self) -> None:
            super().__init__(metric)
            self.going: dict[str, Proposal] = {}

        def suggest(self, trial_id: str) -> Any:
            try:
                proposal = proposals.next()
            except Failed as error:
                self.failure = error
                proposal = None
            if proposal is None:
                return Searcher.FINISHED
            self.going[trial_id] = proposal
            return {"number": proposal.number, "params": proposal.params}

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            rung = result[TRAINING_ITERATION]
            proposals.scored(self.going[trial_id], rung, result[metric])

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            proposal = self.going.pop(trial_id, None)
            if proposal is not None:
                proposals.tell(proposal, (result or {}).get(metric), error)

    return Search()


def _trainable(point: dict[str, Any], study: Path, trial: TrialFunction) -> None:
    """In a Ray worker: report what the folder has recorded, then let the trial go on where it stands."""
    from ray import tune

    number = point["number"]
    params = point["params"]
    folder = folder_of(study, name_of(number, params))
    folder.begin(number, params)

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
        trial(folder, params, report)


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
