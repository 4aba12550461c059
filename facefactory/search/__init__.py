"""A search: an engine hands trials out, a sampler proposes them, a scheduler says which go on; a trial is a run folder.

Nothing of an engine's own state is kept. A restarted search replays its trial folders, in order, into a fresh sampler
and scheduler: finished trials report their recorded scores at once, interrupted ones go on from their checkpoints.
"""

import dataclasses
from pathlib import Path

from facefactory import registry, say, trials
from facefactory.results import Goal
from facefactory.search.engines import Engine
from facefactory.search.samplers import Sampler
from facefactory.search.space import Space, distributions
from facefactory.search.study import Report, Study, Sweep, TrialFunction
from facefactory.trials import OVER, Params, Trial

__all__ = ["Report", "Study", "Sweep", "TrialFunction", "best", "points", "results", "run"]


def points(options: Sweep, space: Space, seed: int) -> list[Params] | None:
    """All points that are tried, where the sampler knows them before.

    UserError: there is no such sampler, or it cannot draw from the space.
    """
    sampler: Sampler = registry.build("search.samplers", {"name": options.sampler})
    return sampler.points(space, options.trials, seed)


def run(study: Study) -> list[Trial]:
    """Run or continue a study; what `results` says of it."""
    before = results(study.folder, study.space)
    wanted = study.options.trials
    planned = [trial.params for trial in before]
    known = [trial.number for trial in before]
    ahead = points(study.options, study.space, study.seed)
    if ahead is not None:
        planned = ahead
        known = []
        wanted = len(planned)
    if len(before) < wanted or any(trial.state not in OVER for trial in before):
        engine: Engine = registry.build("search.engines", {"name": "ray"})
        engine.search(study, planned[:wanted], wanted, known)
    return results(study.folder, study.space)


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
