"""What a search tries next: replayed trials, samplers, points that cost too much; and what sampler and scheduler are worth."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from facefactory import Failed, UserError, registry, search
from facefactory.results import Goal
from facefactory.search import Refusal, Study, Sweep
from facefactory.search.proposals import Proposals
from facefactory.search.space import Space
from facefactory.trials import Params, Rung

SPACE: Space = {
    "width": {"choice": [4, 8, 16, 32]},
    "lr": {"log_uniform": [1e-4, 1e-1]},
}
WIDTHS: Space = {"width": {"choice": [4, 8, 16, 32]}}
SAMPLERS = registry.names("search.samplers")
SCHEDULERS = registry.names("search.schedulers")


def anything(params: Params) -> Refusal | None:
    return None


def narrow(params: Params) -> Refusal | None:
    width = float(params["width"])
    return Refusal({"parameters": width}, f"width {width:g}") if width > 8 else None


def study_of(
    folder: Path,
    space: Space = SPACE,
    refuse: Callable[[Params], Refusal | None] = anything,
    seed: int = 0,
    **options: Any,
) -> Study:
    return Study(
        folder=folder,
        space=space,
        options=Sweep(**options),
        goal=Goal("fit", "lower"),
        seed=seed,
        trial=lambda folder, params, report: None,
        threads=1,
        gpus=0.0,
        needs_gpus=False,
        should_stop=lambda: False,
        refuse=refuse,
        ray=None,
    )


def proposals_of(study: Study) -> Proposals:
    ahead = search.points(study.options, study.space, study.seed)
    if ahead is not None:
        return Proposals(study, ahead, [], is_all=True)
    before = search.results(study.folder, study.space)
    params = [trial.params for trial in before]
    numbers = [trial.number for trial in before]
    return Proposals(study, params, numbers, is_all=False)


def drawn(proposals: Proposals, count: int, ends: bool = True) -> list[tuple[int, Params]]:
    """As many points, each written down and, if it `ends`, scored before the next one."""
    found = []
    for _ in range(count):
        proposal = proposals.next()
        if proposal is None:
            break
        proposal.folder.begin(proposal.number, proposal.params)
        if ends:
            score = float(proposal.params["width"])
            proposal.folder.add(Rung(1.0, {"fit": score}))
            proposal.folder.end("finished")
            proposals.tell(proposal, score)
        found.append((proposal.number, proposal.params))
    return found


# -- samplers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_a_seed_gives_the_same_points_and_another_one_others(sampler: str, tmp_path: Path) -> None:
    space = {**SPACE, "beta": {"uniform": [0.0, 1.0]}}  # a second range, which CMA-ES needs
    found = []
    for number, seed in enumerate((1, 1, 2)):
        study = study_of(tmp_path / str(number), space, sampler=sampler, trials=8, seed=seed)
        found.append(drawn(proposals_of(study), 8))
    assert len(found[0]) == 8
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_a_search_that_goes_on_begins_with_what_it_had_and_repeats_no_point(
    sampler: str, tmp_path: Path
) -> None:
    space = {**SPACE, "beta": {"uniform": [0.0, 1.0]}}
    first = drawn(proposals_of(study_of(tmp_path, space, sampler=sampler, trials=5)), 5)
    more = drawn(proposals_of(study_of(tmp_path, space, sampler=sampler, trials=9)), 9)
    assert more[:5] == first
    assert [number for number, _ in more] == list(range(9))
    points = [str(params) for _, params in more]
    assert len(set(points)) == 9


def test_sobol_fills_every_part_of_a_conditional_space(tmp_path: Path) -> None:
    space: Space = {
        "kind": {"choice": ["a", "b"]},
        "lr": [
            {"uniform": [0.0, 1.0], "when": {"kind": "a"}},
            {"uniform": [1.0, 2.0], "when": {"kind": "b"}},
        ],
    }
    points = search.points(Sweep(sampler="sobol", trials=32), space, seed=3)
    assert points is not None
    for kind, low in (("a", 0.0), ("b", 1.0)):
        own = [point["lr"] - low for point in points if point["kind"] == kind]
        assert len(own) == 16
        assert {int(4 * share) for share in own} == {0, 1, 2, 3}
    fewer = search.points(Sweep(sampler="sobol", trials=20), space, seed=3)
    assert fewer == points[:20]


def test_cmaes_needs_ranges_that_always_apply() -> None:
    with pytest.raises(UserError, match=r"cmaes moves in 2 ranges or more.*this space has lr\."):
        search.points(Sweep(sampler="cmaes"), SPACE, seed=0)


@pytest.mark.parametrize("key", ["sampler", "scheduler"])
def test_an_unknown_rule_is_refused_with_those_that_exist(key: str) -> None:
    options = Sweep(**{key: "tpee"})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"search.{key}s: no 'tpee'; there are .*none|random"):
        search.check(options, SPACE, seed=0)


@pytest.mark.parametrize(("old", "scheduler"), [(True, "asha"), (False, "none"), (None, "median")])
def test_the_older_word_for_a_scheduler_is_understood(old: bool | None, scheduler: str) -> None:
    options = Sweep(early_stopping=old, scheduler="median").resolved()
    assert options.scheduler == scheduler
    assert options.early_stopping is None


def test_where_all_points_are_tried_the_search_ends(tmp_path: Path) -> None:
    study = study_of(tmp_path, WIDTHS, sampler="random", trials=9)
    points = drawn(proposals_of(study), 9)
    assert sorted(params["width"] for _, params in points) == [4, 8, 16, 32]


# -- what costs too much ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "random", "sobol"])
def test_a_point_that_costs_too_much_is_written_down_and_another_one_is_tried(
    sampler: str, tmp_path: Path
) -> None:
    study = study_of(tmp_path, SPACE, narrow, sampler=sampler, trials=12)
    points = drawn(proposals_of(study), 6)
    assert all(params["width"] <= 8 for _, params in points)
    refused = [one for one in search.results(tmp_path, SPACE) if one.state == "infeasible"]
    assert refused
    for trial in refused:
        assert trial.costs == {"parameters": trial.params["width"]}
        assert trial.error == f"width {trial.params['width']}"
        assert trial.failure is None
        assert trial.rungs == ()

    # and they are not estimated again
    def never(params: Params) -> Refusal | None:
        assert params["width"] <= 8
        return None

    again = study_of(tmp_path, SPACE, never, sampler=sampler, trials=12)
    assert drawn(proposals_of(again), len(points)) == points


def test_a_space_without_a_point_that_may_be_tried_ends_with_the_numbers(tmp_path: Path) -> None:
    space: Space = {"width": {"int": [100, 100000]}}
    proposals = proposals_of(study_of(tmp_path, space, narrow, sampler="random"))
    with pytest.raises(Failed, match=r"200 points in a row are infeasible \(the last: width \d+"):
        proposals.next()


def test_trials_that_are_infeasible_are_not_counted(tmp_path: Path) -> None:
    study = study_of(tmp_path, SPACE, narrow, sampler="random", trials=3)
    drawn(proposals_of(study), 3)
    trials = search.results(tmp_path, SPACE)
    assert len(trials) > 3
    assert len(search.best(trials, 9, study.goal)) == 3
    assert search.run(study) == trials  # nothing is missing: no engine is started


# -- what it is worth ------------------------------------------------------------------------------------------------


def synthetic(params: Params, kimg: float, seed: int) -> float:
    """A score that falls with the budget to what a point is worth; noise is the point's own."""
    noise = random.Random(f"{sorted(params.items())} {kimg} {seed}").gauss(0, 0.3)
    far = (math.log10(params["lr"]) + 2.6) ** 2 + 6 * (params["beta"] - 0.3) ** 2
    kind = {"plain": 6.0, "residual": 3.0, "style": 0.0, "deep": 8.0}[params["kind"]]
    end = 10 + 8 * far + kind + (0.0 if params["width"] == 16 else 2.0)
    return end + 30 * math.exp(-kimg / 6) + noise


@dataclass(eq=False)
class Going:
    """A trial that a scheduler is told of."""

    trial_id: str
    proposal: Any
    rung: int = 0


def simulated(sampler: str, scheduler: str, trials: int, seed: int, folder: Path) -> list[Any]:
    """(thousands of images shown so far, score at the whole budget) of each trial that got so far; four trials at a time."""
    space: Space = {
        "kind": {"choice": ["plain", "residual", "style", "deep"]},
        "width": {"choice": [8, 16, 32]},
        "lr": {"log_uniform": [1e-4, 1e-1]},
        "beta": {"uniform": [0.0, 1.0]},
    }
    options = {"sampler": sampler, "trials": trials, "min_kimg": 3, "max_kimg": 27}
    study = study_of(folder, space, seed=seed, **options)
    proposals = proposals_of(study)
    rungs = study.options.rungs()
    rule: Any = registry.build("search.schedulers", {"name": scheduler})
    rule = rule.ray(rungs, study.options.reduction)
    rule.set_search_properties("fit", "min")
    going: list[Any] = []
    controller = SimpleNamespace(get_live_trials=lambda: set(going))
    ended = []
    started = 0
    shown = 0.0
    while going or started < trials:
        while len(going) < 4 and started < trials:
            trial = Going(str(started), proposals.next())
            rule.on_trial_add(controller, trial)
            going.append(trial)
            started += 1

        # one of them reaches its next rung
        trial = going.pop(0)
        kimg = rungs[trial.rung]
        shown += kimg - (rungs[trial.rung - 1] if trial.rung else 0.0)
        trial.rung += 1
        score = synthetic(trial.proposal.params, kimg, seed)
        proposals.scored(trial.proposal, trial.rung, score)
        result = {"kimg": kimg, "fit": score, "training_iteration": trial.rung}
        goes_on = rule.on_trial_result(controller, trial, result) == "CONTINUE"
        if goes_on and trial.rung < len(rungs):
            going.append(trial)
            continue
        proposals.tell(trial.proposal, score)
        if trial.rung == len(rungs):
            ended.append((shown, score))
    return ended


def test_tpe_and_asha_reach_the_best_of_random_search_with_a_third_of_its_images(
    tmp_path: Path,
) -> None:
    shares = []
    for seed in range(5):
        plain = simulated("random", "none", 48, seed, tmp_path / f"random-{seed}")
        goal = min(score for _, score in plain)
        quick = simulated("tpe", "asha", 120, seed, tmp_path / f"tpe-{seed}")
        reached = [shown for shown, score in quick if score <= goal]
        shares.append(min(reached, default=math.inf) / plain[-1][0])
    assert statistics.median(shares) <= 1 / 3, shares


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_stops_none_of_the_best_and_no_trial_before_the_first_rung(
    scheduler: str, tmp_path: Path
) -> None:
    ended = simulated("random", scheduler, 24, 1, tmp_path / "a")
    assert ended
    all_of_them = simulated("random", "none", 24, 1, tmp_path / "b")
    assert len(all_of_them) == 24
    best = sorted(score for _, score in all_of_them)
    assert min(score for _, score in ended) <= best[2]
    assert ended[-1][0] <= all_of_them[-1][0]
