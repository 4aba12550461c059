"""Which parameters matter: PED-ANOVA and fANOVA with intervals, with and without stopped trials."""

import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facefactory.report import studies
from facefactory.report.facts import Facts
from facefactory.report.sections import Section
from facefactory.results import Goal
from facefactory.trials import Trial

ENOUGH = 10  # trials, and twice as many as parameters
DRAWS = 40  # sets of trials drawn with replacement
FORESTS = 6  # of fANOVA, each of a seed of its own
TREES = 16
LARGEST = 200  # trials that a forest learns from
Pairs = list[tuple[Trial, float]]


@dataclass(frozen=True)
class Importance:
    """Of one parameter: its share of all, 0…1."""

    param: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Assessed:
    """One method on one choice of trials."""

    method: str
    policy: str  # which trials, by which score
    whose: str  # the group of trials that have these parameters; "": all
    trials: int
    rows: list[Importance] = field(default_factory=list)  # the most important first
    absent: str = ""  # why there are none


class Component(Section):
    """Of the parameters that all trials have, and of each family's own."""

    title = "Importance"
    place = 50
    kinds = ("sweep",)

    def data(self, facts: Facts) -> list[Assessed]:
        """Both methods, on two choices of trials, for all of them and for each family."""
        policies = {
            "finished trials, by their score at the last rung": studies.finished,
            "all trials, stopped ones too, by their score at the first rung": studies.at_first_rung,
        }
        found = []
        for whose, trials in _wholes(facts.trials):
            for policy, choose in policies.items():
                scored = choose(trials, facts.metric)
                for method, assess in METHODS.items():
                    found.append(_assessed(method, assess, policy, whose, scored, facts.goal))
        return found

    def best(self, data: list[Assessed]) -> list[Assessed]:
        """Those that say something."""
        return [one for one in data if one.rows]


def _wholes(trials: list[Trial]) -> list[tuple[str, list[Trial]]]:
    """All trials, then each family, where there are several."""
    families = studies.groups(trials)
    wholes = [("", trials)]
    if len(families) > 1:
        for family in families:
            wholes.append((family.title, [one for one in trials if one.name in family.trials]))
    return wholes


def _assessed(
    method: str, assess: Callable[..., Any], policy: str, whose: str, scored: Pairs, goal: Goal
) -> Assessed:
    """What a method says, or why it says nothing."""
    about = (method, policy, whose, len(scored))
    params = varied([trial for trial, _ in scored])
    wanted = max(ENOUGH, 2 * len(params))
    if len(scored) < wanted:
        return Assessed(*about, absent=f"not enough trials: {len(scored)} of {wanted}")
    if len({score for _, score in scored}) < 2 or not params:
        return Assessed(*about, absent="nothing varies")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Optuna says of few trials, the intervals say
            shares = assess(scored, goal)
    except (ImportError, ValueError, RuntimeError) as error:
        return Assessed(*about, absent=str(error).split(". ")[0])
    rows = []
    for param in params:
        values = np.array([one.get(param, 0.0) for one in shares])
        low, high = np.quantile(values, [0.025, 0.975])
        rows.append(Importance(param, float(values.mean()), float(low), float(high)))
    rows.sort(key=lambda row: -row.share)
    return Assessed(*about, rows)


def varied(trials: list[Trial]) -> list[str]:
    """Parameters that all trials have, with more than one value."""
    if not trials:
        return []
    common = set.intersection(*(set(trial.params) & set(trial.distributions) for trial in trials))
    return sorted(
        name for name in common if len({str(trial.params[name]) for trial in trials}) > 1
    )


def ped_anova(scored: Pairs, goal: Goal) -> list[dict[str, float]]:
    """Shares by PED-ANOVA (Watanabe et al., IJCAI 2023), of sets of trials drawn with replacement."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    params = varied([trial for trial, _ in scored])
    generator = np.random.default_rng(0)
    quantile = max(0.1, min(0.5, 4 / len(scored)))
    records = studies.frozen(scored)
    shares = []
    for _ in range(DRAWS if len(scored) <= LARGEST else DRAWS // 2):
        drawn = [records[place] for place in generator.integers(len(records), size=len(records))]
        study = studies.study_with(drawn, goal)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        shares.append(get_param_importances(study, evaluator=evaluator, params=params))
    return _sound(shares)


def fanova(scored: Pairs, goal: Goal) -> list[dict[str, float]]:
    """Shares by fANOVA (Hutter et al., ICML 2014), of forests of several seeds; ImportError: no scikit-learn."""
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError("fANOVA needs scikit-learn: pip install scikit-learn")
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    params = varied([trial for trial, _ in scored])
    step = math.ceil(len(scored) / LARGEST)
    study = studies.study_of(scored[::step], goal)
    shares = []
    for seed in range(FORESTS):
        evaluator = FanovaImportanceEvaluator(n_trees=TREES, max_depth=32, seed=seed)
        shares.append(get_param_importances(study, evaluator=evaluator, params=params))
    return _sound(shares)


def _sound(shares: list[dict[str, float]]) -> list[dict[str, float]]:
    """Those that are numbers; ValueError: none."""
    sound = [one for one in shares if all(map(math.isfinite, one.values()))]
    if not sound:
        raise ValueError("the scores do not depend on any parameter")
    return sound


METHODS = {"PED-ANOVA": ped_anova, "fANOVA": fanova}
