"""Trials as Optuna studies, and in groups of equal parameters."""

import math
from dataclasses import dataclass
from typing import Any

from facefactory.results import Goal
from facefactory.trials import Trial


@dataclass(frozen=True)
class Group:
    """Trials that have the same parameters: of one family, where others depend on the family."""

    title: str
    params: list[str]
    trials: list[str]  # names


def groups(trials: list[Trial]) -> list[Group]:
    """The groups, the largest first; named by what all of a group share and no other group has."""
    found: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        found.setdefault(tuple(sorted(trial.params)), []).append(trial)
    kinds = sorted(found.items(), key=lambda item: -len(item[1]))
    result = []
    for params, members in kinds:
        title = _title(members, [trial for trial in trials if trial not in members])
        result.append(Group(title, list(params), [trial.name for trial in members]))
    return result


def _title(members: list[Trial], others: list[Trial]) -> str:
    """The values that they share and others do not have."""
    shared = []
    for name, value in members[0].params.items():
        own = all(trial.params[name] == value for trial in members)
        if own and any(trial.params.get(name) != value for trial in others):
            shared.append(f"{name}={value}")
    return ", ".join(shared) or ", ".join(members[0].params) or "no parameters"


def finished(trials: list[Trial], metric: str) -> list[tuple[Trial, float]]:
    """Trials that finished at the highest rung, with their scores there: unlike rungs are not compared."""
    ended = []
    for trial in trials:
        last = trial.last(metric)
        if last is not None and trial.state == "finished":
            ended.append((*last, trial))
    highest = max((kimg for kimg, _, _ in ended), default=math.inf)
    return [(trial, score) for kimg, score, trial in ended if kimg >= highest]


def at_first_rung(trials: list[Trial], metric: str) -> list[tuple[Trial, float]]:
    """All trials that have a score at the first rung, with it: those that stopped there too."""
    first = min((rung.kimg for trial in trials for rung in trial.rungs), default=math.inf)
    found = []
    for trial in trials:
        for rung in trial.rungs:
            score = rung.scores.get(metric)
            if rung.kimg == first and score is not None:
                found.append((trial, score))
    return found


def study(trials: list[Trial], goal: Goal, most: int | None = None) -> Any:
    """An Optuna study of the trials that finished at the highest rung; `most`: of the best of them."""
    scored = finished(trials, goal.metric)
    sign = 1 if goal.better == "lower" else -1
    if most is not None and len(scored) > most:
        scored = sorted(scored, key=lambda pair: sign * pair[1])[:most]
    return study_of(scored, goal)


def study_of(scored: list[tuple[Trial, float]], goal: Goal) -> Any:
    """An Optuna study of some trials with their scores."""
    return study_with(frozen(scored), goal)


def study_with(kept: list[Any], goal: Goal) -> Any:
    """An Optuna study of Optuna's own records of trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = {"lower": "minimize", "higher": "maximize"}
    rebuilt = optuna.create_study(study_name="sweep", direction=directions[goal.better])
    rebuilt.add_trials(kept)
    return rebuilt


def frozen(scored: list[tuple[Trial, float]]) -> list[Any]:
    """Trials as Optuna's records; parameters without a distribution are left out."""
    import optuna

    known: dict[str, Any] = {}
    kept = []
    for trial, score in scored:
        for text in trial.distributions.values():
            if text not in known:
                known[text] = optuna.distributions.json_to_distribution(text)
        kinds = {name: known[text] for name, text in trial.distributions.items()}
        params = {name: trial.params[name] for name in kinds}
        kept.append(optuna.trial.create_trial(value=score, params=params, distributions=kinds))
    return kept
