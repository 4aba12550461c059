"""A search: an engine hands trials out, a sampler proposes them, a scheduler says which go on; a trial is a run folder.

Nothing of an engine's own state is kept. A restarted search replays its trial folders, in order, into a fresh sampler
and scheduler: finished trials report their recorded scores at once, interrupted ones go on from their checkpoints.
"""

import dataclasses
from pathlib import Path

from facefactory import UserError, registry, say, trials
from facefactory.results import Goal
from facefactory.search.engines import Engine
from facefactory.search.samplers import Sampler
from facefactory.search.schedulers import Scheduler
from facefactory.search.space import Space, distributions
from facefactory.search.study import Refusal, Report, Study, Sweep, TrialFunction
from facefactory.trials import OVER, Params, Trial

__all__ = [
    "Refusal",
    "Report",
    "Study",
    "Sweep",
    "TrialFunction",
    "best",
    "check",
    "feasible",
    "points",
    "results",
    "run",
]


def points(options: Sweep, space: Space, seed: int) -> list[Params] | None:
    """All points that are tried, where the sampler knows them before.

    UserError: there is no such sampler, or it cannot draw from the space.
    """
    sampler: Sampler = registry.build("search.samplers", {"name": options.sampler})
    return sampler.points(space, options.trials, seed)


def check(options: Sweep, space: Space, seed: int) -> None:
    """UserError: there is no such sampler or scheduler, a package is missing for it, or it cannot work on this space."""
    points(options, space, seed)
    engine: Engine = registry.build("search.engines", {"name": options.engine})
    scheduler: Scheduler = registry.build(
        "search.schedulers", {"name": options.resolved().scheduler}
    )
    if engine.own_jobs:  # trials decide by themselves
        scheduler.goes_on([0.0], [], options.reduction)
    options.rungs()
    gpus = options.gpus_per_trial
    if gpus > 1 and gpus % 1:
        raise UserError(
            f"sweep.gpus_per_trial={gpus:g}; give a share of one GPU (at most 1), or a whole number."
        )


def run(study: Study) -> list[Trial]:
    """Run or continue a study; what `results` says of it.

    Failed: nearly all points cost more than the space allows.
    """
    from facefactory.search.proposals import Proposals

    before = results(study.folder, study.space)
    ahead = points(study.options, study.space, study.seed)
    if ahead is not None:
        proposals = Proposals(study, ahead, [], is_all=True)
        wanted = len(ahead)
        missing = len(before) < wanted
    else:
        replayed = _first(before, study.options.trials)
        params = [trial.params for trial in replayed]
        numbers = [trial.number for trial in replayed]
        proposals = Proposals(study, params, numbers, is_all=False)
        wanted = study.options.trials
        missing = len(feasible(before)) < wanted
    if missing or any(trial.state not in OVER for trial in before):
        engine: Engine = registry.build("search.engines", {"name": study.options.engine})
        engine.search(study, proposals, wanted)
    return results(study.folder, study.space)


def feasible(trials: list[Trial]) -> list[Trial]:
    """Those that do not cost more than their space allows: they alone count as tried."""
    return [trial for trial in trials if trial.state != "infeasible"]


def _first(trials: list[Trial], count: int) -> list[Trial]:
    """As far as `count` of them are feasible."""
    for number in range(len(trials)):
        if len(feasible(trials[:number])) == count:
            return trials[:number]
    return trials


def results(study: Path, space: Space) -> list[Trial]:
    """Every trial by number, with the distributions that its parameters were drawn from.

    One that cannot be read, or that was not drawn from this space, is named in a line and left out.
    """
    import optuna

    found = []
    for trial in trials.read(study):
        try:
            kinds = distributions(trial.params, space)
        except ValueError:
            say(f"sweep: trial {trial.name} was not drawn from this space; it counts as missing.")
            continue
        texts = {
            name: optuna.distributions.distribution_to_json(kind) for name, kind in kinds.items()
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
