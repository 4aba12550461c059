"""A study: rungs, spaces, proposals, grids, names, results, who is best; and one in a Ray of its own."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from facefactory import UserError, command, config, registry, rundir, search, trials
from facefactory.facts import Facts
from facefactory.models.gan.stylegan2 import Component
from facefactory.results import Goal
from facefactory.run import Run, resolve, space_of, value_at, with_params
from facefactory.search.proposals import number_of
from facefactory.search.space import Space, check_space, examples, grid, propose
from facefactory.search.study import Sweep
from facefactory.stages._networks import rules_of
from facefactory.trials import Rung, State, Trial

GOAL = Goal("fit", "lower")
JOBS = Path(__file__).parents[1] / "jobs"
SPACES = sorted(path.stem for path in (JOBS / "spaces").glob("*.yaml"))
SPACE: Space = {
    "lr": {"log_uniform": [1e-4, 1e-2]},
    "width": {"int": [8, 16]},
    "loss": {"choice": ["hinge", "wgan", "logistic"]},
    "clip": {"uniform": [0.0, 1.0], "when": {"loss": "wgan"}},
    "r1": {"choice": [0.1, 1.0], "when": {"loss": ["logistic", "wgan"]}},
    "lazy": {"choice": [True, False], "when": {"loss": "wgan", "r1": 1.0}},
}


# -- rungs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "factor", "rungs"),
    [
        (4, 12, 3, [4, 12]),
        (4, 36, 3, [4, 12, 36]),
        (4, 30, 3, [4, 12, 30]),  # the budget is the last rung even where it is no power
        (1, 10, 2, [1, 2, 4, 8, 10]),
        (4, 5, 3, [4, 5]),
        (5, 5, 3, [5]),
        (0.1, 0.3, 3, [0.1, 0.3]),
    ],
)
def test_rungs_grow_by_the_factor_and_end_at_the_budget(
    low: float, high: float, factor: int, rungs: list[float]
) -> None:
    assert Sweep(min_kimg=low, max_kimg=high, reduction=factor).rungs() == pytest.approx(rungs)


def test_no_rung_lies_a_rounding_error_below_the_last() -> None:
    assert Sweep(min_kimg=0.7, max_kimg=2.1, reduction=3).rungs() == pytest.approx([0.7, 2.1])


def test_a_last_rung_below_the_first_is_refused_with_both() -> None:
    with pytest.raises(UserError, match=r"sweep\.max_kimg=3 is below sweep\.min_kimg=4"):
        Sweep(min_kimg=4, max_kimg=3).rungs()


# -- spaces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        3,
        [1, 2],
        {},
        {"when": {"lr": 1}},
        {"choices": [1, 2]},
        {"choice": []},
        {"choice": 5},
        {"uniform": [1]},
        {"uniform": [1, 2, 3]},
        {"uniform": [2, 1]},
        {"int": 4},
        {"log_uniform": {"low": 1, "high": 2}},
        {"uniform": [0, 1], "choice": [0, 1]},
    ],
    ids=str,
)
def test_a_wrong_entry_is_named_with_what_is_allowed(entry: Any) -> None:
    with pytest.raises(UserError) as caught:
        check_space({"lr": {"uniform": [0, 1]}, "model.width": entry}, "mine")
    for named in (
        "mine",
        "model.width",
        repr(entry),
        "choice",
        "uniform",
        "log_uniform",
        "int",
        "when",
    ):
        assert named in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"uniform": [1, "b"]},
        {"uniform": ["a", "b"]},
        {"log_uniform": [0, 1]},
        {"int": [1.5, 3]},
        {"choice": [1, 2], "wen": {"lr": 1}},
    ],
    ids=str,
)
def test_an_entry_that_optuna_cannot_draw_from_or_that_has_a_misspelt_condition_is_refused(
    entry: Any,
) -> None:
    with pytest.raises(UserError, match=r"space mine: model\.width is .*allowed are"):
        check_space({"lr": {"choice": [1, 2]}, "model.width": entry}, "mine")


@pytest.mark.parametrize("order", [["b", "a"], ["b"]], ids=["below", "nowhere"])
def test_a_condition_on_what_is_not_drawn_before_is_refused_with_both_names(
    order: list[str],
) -> None:
    entries = {"a": {"choice": [1, 2]}, "b": {"choice": [1, 2], "when": {"a": 1}}}
    with pytest.raises(UserError, match=r"space mine: b depends on a, .*put a above it"):
        check_space({name: entries[name] for name in order}, "mine")


def test_a_right_space_passes() -> None:
    check_space(SPACE, "right")
    check_space({"one": {"choice": [None]}, "fixed": {"int": [3, 3]}}, "smallest")


# -- proposals -------------------------------------------------------------------------------------------------------


def test_proposals_lie_in_their_ranges() -> None:
    found = list(examples(SPACE, 100))
    assert len(found) == 100
    for point in found:
        assert 1e-4 <= point["lr"] <= 1e-2
        assert 8 <= point["width"] <= 16
        assert isinstance(point["width"], int)
    assert (
        sum(point["lr"] < 1e-3 for point in found) > 25
    )  # half of a logarithmic range; a uniform one would give 9
    assert {point["width"] for point in found} == set(range(8, 17))


def test_a_conditional_entry_is_drawn_exactly_when_its_condition_holds() -> None:
    seen = set()
    for point in examples(SPACE, 200):
        assert ("clip" in point) == (point["loss"] == "wgan")
        assert ("r1" in point) == (point["loss"] in ("wgan", "logistic"))
        assert ("lazy" in point) == (point["loss"] == "wgan" and point["r1"] == 1.0)
        seen.add((point["loss"], "lazy" in point))
    assert seen == {("hinge", False), ("logistic", False), ("wgan", False), ("wgan", True)}


def test_what_does_not_apply_is_not_even_asked_of_the_searcher() -> None:
    trial = optuna.trial.FixedTrial(
        {"lr": 1e-3, "width": 8, "loss": "hinge", "clip": 0.5, "r1": 1.0, "lazy": True}
    )
    assert propose(trial, SPACE) == {"lr": 1e-3, "width": 8, "loss": "hinge"}
    assert trial.distributions.keys() == {"lr", "width", "loss"}


def test_examples_are_always_the_same() -> None:
    assert list(examples(SPACE, 5)) == list(examples(SPACE, 5))


# -- grids -----------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_point_in_order() -> None:
    space = {"a": {"choice": [2, 1]}, "b": {"choice": ["x", "y"]}}
    assert grid(space) == [
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
    ]


def test_a_grid_of_a_conditional_space_has_each_distinct_point_once() -> None:
    space = {name: entry for name, entry in SPACE.items() if "choice" in entry}
    assert grid(space) == [
        {"loss": "hinge"},
        {"loss": "wgan", "r1": 0.1},
        {"loss": "wgan", "r1": 1.0, "lazy": True},
        {"loss": "wgan", "r1": 1.0, "lazy": False},
        {"loss": "logistic", "r1": 0.1},
        {"loss": "logistic", "r1": 1.0},
    ]


def test_a_grid_over_ranges_is_refused_with_their_names_and_the_other_samplers() -> None:
    with pytest.raises(UserError, match=r"lr, width, clip has a range; use tpe or random"):
        grid(SPACE)


# -- names, results, best --------------------------------------------------------------------------------------------


def test_a_trial_is_named_by_its_number_and_the_digest_of_its_parameters_in_any_order() -> None:
    digest = hashlib.sha256(b'{"lr": 0.001, "width": 8}').hexdigest()[:8]
    assert trials.name_of(7, {"width": 8, "lr": 0.001}) == f"007-{digest}"
    assert trials.name_of(7, {"lr": 0.001, "width": 8}) == f"007-{digest}"
    assert trials.name_of(7, {"lr": 0.001, "width": 9}) != f"007-{digest}"


def put_trial(
    study: Path, number: int, state: dict[str, Any] | None, scores: str, **params: Any
) -> Path:
    """A trial's folder as `_trainable` and the stage's trials leave it."""
    params = {"lr": 0.001, "width": 8, "loss": "hinge", **params}
    path = study / "trials" / trials.name_of(number, params)
    rundir.write_json(path / "trial.json", {"number": number, "params": params})
    if state is not None:
        rundir.write_json(path / "state.json", state)
    (path / "scores.jsonl").write_text(scores)
    return path


def line(kimg: float, score: float) -> str:
    return json.dumps({"kimg": kimg, "fit": score}) + "\n"


def test_results_tell_finished_stopped_failed_and_interrupted_trials_apart(tmp_path: Path) -> None:
    put_trial(tmp_path, 2, {"state": "failed", "error": "ValueError: no"}, line(4, 0.3))
    put_trial(tmp_path, 0, {"state": "finished"}, line(4, 0.2) + line(12, 0.1))
    put_trial(tmp_path, 3, None, "")
    path = put_trial(tmp_path, 1, {"state": "stopped"}, line(4, 0.9), width=16)
    (tmp_path / "trials" / "004-unborn").mkdir()  # killed before trial.json
    found = search.results(tmp_path, SPACE)
    assert [trial.number for trial in found] == [0, 1, 2, 3]
    assert [trial.state for trial in found] == ["finished", "stopped", "failed", "interrupted"]
    assert [trial.error for trial in found] == [None, None, "ValueError: no", None]
    assert [[rung.kimg for rung in trial.rungs] for trial in found] == [[4, 12], [4], [4], []]
    assert found[1].name == path.name
    assert found[1].params == {"lr": 0.001, "width": 16, "loss": "hinge"}


def test_what_is_written_of_a_trial_is_read_again(tmp_path: Path) -> None:
    put_trial(
        tmp_path,
        0,
        {"state": "failed", "error": "no"},
        line(4, 0.2),
        width=9,
    )
    (trial,) = search.results(tmp_path, SPACE)
    text = json.dumps(trial.entry(), allow_nan=False)
    assert Trial.read(json.loads(text)) == trial
    assert json.loads(text)["scores"] == [{"kimg": 4, "fit": 0.2}]


def test_a_score_line_that_a_kill_tore_is_left_out(tmp_path: Path) -> None:
    put_trial(
        tmp_path,
        0,
        None,
        line(4, 0.2) + line(12, 0.1)[:-9],
    )
    put_trial(tmp_path, 1, None, line(4, 0.2)[:-1])  # whole, but nobody knows
    first, second = search.results(tmp_path, SPACE)
    assert first.rungs == (Rung(4, {"fit": 0.2}),)
    assert first.state == "interrupted"
    assert second.rungs == ()


@pytest.mark.parametrize("other", ['{"fit": 0.1}', '{"kimg": "4", "fit": 0.1}', "[4, 0.1]", "{"])
def test_a_line_that_is_no_score_is_left_out(tmp_path: Path, other: str) -> None:
    put_trial(tmp_path, 0, None, f"{other}\n{line(4, 0.2)}")
    (trial,) = search.results(tmp_path, SPACE)
    assert trial.rungs == (Rung(4, {"fit": 0.2}),)


def test_a_score_that_is_no_number_is_no_best_one(tmp_path: Path) -> None:
    put_trial(
        tmp_path,
        0,
        {"state": "finished"},
        line(4, 0.2) + line(12, float("nan")),
    )
    put_trial(
        tmp_path,
        1,
        {"state": "finished"},
        line(4, 0.1),
        width=9,
    )
    found = search.results(tmp_path, SPACE)
    assert found[0].rungs[1].scores == {"fit": None}
    assert [trial.number for trial in search.best(found, 2, GOAL)] == [1, 0]


@pytest.mark.parametrize("content", ["", '{"number": 0, "par', "{}", "[]", '{"number": "0"}'])
def test_a_damaged_trial_is_named_in_a_line_and_left_out(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put_trial(
        tmp_path,
        0,
        {"state": "finished"},
        line(4, 0.2),
    )
    put_trial(
        tmp_path,
        1,
        {"state": "finished"},
        line(4, 0.1),
        width=9,
    )
    (path / "trial.json").write_text(content)
    assert [trial.number for trial in search.results(tmp_path, SPACE)] == [1]
    (said,) = capsys.readouterr().err.splitlines()
    assert str(path / "trial.json") in said
    assert said.endswith("it counts as missing.")


def test_a_trial_of_another_space_is_named_in_a_line_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put_trial(
        tmp_path,
        0,
        {"state": "finished"},
        line(4, 0.2),
    )
    assert search.results(tmp_path, {**SPACE, "depth": {"int": [1, 3]}}) == []
    assert path.name in capsys.readouterr().err


def test_a_damaged_trial_that_is_drawn_again_is_written_anew_and_keeps_its_scores(
    tmp_path: Path,
) -> None:
    path = put_trial(
        tmp_path,
        0,
        {"state": "finished"},
        line(4, 0.2),
    )
    written = (path / "trial.json").read_text()
    (path / "trial.json").write_text("{")
    params = {"lr": 0.001, "width": 8, "loss": "hinge"}
    trials.folder_of(tmp_path, trials.name_of(0, params)).begin(0, params)
    assert (path / "trial.json").read_text() == written
    (trial,) = search.results(tmp_path, SPACE)
    assert trial.state == "finished"
    assert trial.rungs == (Rung(4, {"fit": 0.2}),)


@pytest.mark.parametrize("content", ["", "[]", '{"state": "lost"}'])
def test_a_trial_whose_state_is_damaged_was_interrupted_and_goes_on(
    tmp_path: Path, content: str
) -> None:
    path = put_trial(
        tmp_path,
        0,
        {"state": "finished"},
        line(4, 0.2),
    )
    (path / "state.json").write_text(content)
    (trial,) = search.results(tmp_path, SPACE)
    assert trial.state == "interrupted"
    assert trial.error is None
    trials.TrialFolder(path).close()
    assert trials.TrialFolder(path).ending() == ("stopped", None)


def test_results_hold_the_distributions_of_what_was_drawn(tmp_path: Path) -> None:
    put_trial(
        tmp_path,
        0,
        None,
        "",
        loss="wgan",
        clip=0.5,
        r1=0.1,
    )
    (trial,) = search.results(tmp_path, SPACE)
    again = {
        name: optuna.distributions.json_to_distribution(text)
        for name, text in trial.distributions.items()
    }
    assert again == {
        "lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "width": optuna.distributions.IntDistribution(8, 16),
        "loss": optuna.distributions.CategoricalDistribution(["hinge", "wgan", "logistic"]),
        "clip": optuna.distributions.FloatDistribution(0.0, 1.0),
        "r1": optuna.distributions.CategoricalDistribution([0.1, 1.0]),
    }


def test_a_study_that_has_not_begun_has_no_results(tmp_path: Path) -> None:
    assert search.results(tmp_path / "nowhere", SPACE) == []


def test_trials_come_by_number_beyond_the_thousandth(tmp_path: Path) -> None:
    for number in (1000, 999, 2):
        put_trial(tmp_path, number, None, "")
    assert [trial.number for trial in search.results(tmp_path, SPACE)] == [2, 999, 1000]


def scored(name: str, *scores: tuple[float, float], state: State = "finished") -> Trial:
    rungs = tuple(Rung(kimg, {"fit": score}) for kimg, score in scores)
    return Trial(name, 0, {}, state, rungs)


def test_the_best_got_furthest_and_then_scored_lowest_at_their_last_rung() -> None:
    tried = [
        scored("stopped but low", (4, 0.01), state="stopped"),
        scored("far, low at first", (4, 0.02), (12, 0.5)),
        scored("far and low", (4, 0.9), (12, -0.001)),  # the unbiased distance may be negative
        scored("far", (4, 0.9), (12, 0.2)),
        scored("stopped", (4, 0.3), state="stopped"),
    ]
    ranked = [trial.name for trial in search.best(tried, 10, GOAL)]
    assert ranked == ["far and low", "far", "far, low at first", "stopped but low", "stopped"]
    assert [trial.name for trial in search.best(tried, 2, GOAL)] == ranked[:2]


def test_where_higher_is_better_the_best_scored_highest() -> None:
    tried = [
        scored("low", (12, 0.1)),
        scored("high", (12, 0.9)),
        scored("stopped", (4, 1.0), state="stopped"),
    ]
    assert [trial.name for trial in search.best(tried, 3, Goal("fit", "higher"))] == [
        "high",
        "low",
        "stopped",
    ]


def test_trials_that_failed_or_have_no_score_are_not_among_the_best() -> None:
    tried = [
        scored("failed", (12, 0.0), state="failed"),
        scored("unborn", state="interrupted"),
        scored("ok", (4, 1.0)),
    ]
    assert [trial.name for trial in search.best(tried, 3, GOAL)] == ["ok"]
    assert search.best([tried[0]], 1, GOAL) == []


# -- the spaces and presets of this project --------------------------------------------------------------------------


PRESETS = {path.stem: config.read_yaml(path) for path in sorted((JOBS / "presets").glob("*.yaml"))}


def presets_of(space: str) -> list[str]:
    return [name for name, tree in PRESETS.items() if tree.get("sweep", {}).get("space") == space]


def run_of(preset: str) -> Run:
    return resolve(config.load(Run, [], [config.read_yaml(JOBS / "presets" / f"{preset}.yaml")]))


@pytest.mark.parametrize("name", SPACES)
def test_every_space_is_right_and_used_by_a_preset(name: str) -> None:
    presets = presets_of(name)
    assert presets
    for preset in presets:
        assert space_of(run_of(preset))


@pytest.mark.parametrize(
    ("space", "preset"), [(space, preset) for space in SPACES for preset in presets_of(space)]
)
def test_every_example_of_a_space_becomes_the_config_of_a_trial(space: str, preset: str) -> None:
    run = run_of(preset)
    for params in examples(space_of(run), 16):
        made = with_params(run, params, total_kimg=run.sweep.max_kimg)
        for dotted, value in params.items():
            found = value_at(made, dotted)
            if isinstance(found, dict):
                assert found["name"] == value
            else:
                assert found == value
        assert made.training.total_kimg == run.sweep.max_kimg
        assert made.training.batch_size == run.training.batch_size
        assert made.model["name"] == params.get("model.name", run.model["name"])


def test_the_probe_is_five_gammas_a_factor_of_two_apart_around_the_rule() -> None:
    run = run_of("sweep-gamma-drawn32")
    [rule] = Component.rules(Facts(32, 32, 3, {}), run.training.batch_size)
    points = grid(space_of(run))
    gammas = [point["objective.terms.r1.gamma"] for point in points]
    assert gammas == pytest.approx([rule.value * factor for factor in (0.25, 0.5, 1, 2, 4)])
    assert run.sweep.trials == len(gammas)
    trial = with_params(run, points[3])
    assert trial.objective["terms"]["r1"]["gamma"] == gammas[3]


def test_only_a_number_can_be_multiplied(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("objective.terms.r1.gamma: {times: [1, 2]}\n")
    schedule = "objective.terms={r1: {gamma: {0: 1, 5: 2}}}"
    for given, shown in ((schedule, "'0': 1"), ("objective.name=elbo", "None")):
        run = resolve(config.load(Run, [f"sweep.space={path}", given], []))
        with pytest.raises(UserError, match=rf"mine.yaml: .*gamma is .*times.*has .*{shown}"):
            space_of(run)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            [],
            "gamma is 0.0128; 0.0002 · 32 · 32 pixels / batch 16 (Karras et al. 2020, ADA) is 0.0128",
        ),
        (
            ["training.batch_size=64"],
            "gamma is 0.0128; 0.0002 · 32 · 32 pixels / batch 64 (Karras et al. 2020, ADA) is 0.0032",
        ),
        (["objective.critic=hinge"], None),
        (["model.name=gan/dcgan"], None),
    ],
)
def test_a_rule_is_told_where_it_was_meant(more: list[str], words: str | None) -> None:
    tree = config.read_yaml(JOBS / "presets" / "stylegan2-orl32.yaml")
    layers = command.without_foreign_options([tree], more)
    run = resolve(config.load(Run, more, layers))
    found = rules_of(run, Facts(32, 32, 1, {}))
    assert found == ([] if words is None else [f"objective.terms.r1.{words}"])


def test_a_trial_of_another_model_starts_from_that_models_defaults() -> None:
    run = resolve(config.load(Run, ["model.name=gan/dcgan", "model.width=24"], []))
    made = with_params(run, {"model.name": "vae/conv", "model.z_dim": 8, "objective.name": "elbo"})
    assert made.model["name"] == "vae/conv"
    assert made.model["z_dim"] == 8
    assert made.model["width"] == 16
    assert "g_norm" not in made.model
    assert "loss" not in made.objective


def test_a_likelihood_of_another_name_starts_from_its_defaults() -> None:
    chosen = ["model.name=vae/conv", "objective.name=elbo", "objective.likelihood.sigma=0.3"]
    run = resolve(config.load(Run, [*chosen, "objective.likelihood.name=gaussian"], []))
    same = with_params(run, {"objective.likelihood.name": "gaussian"})
    assert same.objective["likelihood"] == {"name": "gaussian", "sigma": 0.3}
    params = {"objective.likelihood.name": "laplace", "objective.likelihood.scale": 0.2}
    made = with_params(run, params)
    assert made.objective["likelihood"] == {"name": "laplace", "scale": 0.2}
    other = with_params(run, {"objective.name": "factor", **params})
    assert other.objective["likelihood"] == {"name": "laplace", "scale": 0.2}


def test_settings_of_networks_go_with_the_component_that_has_them() -> None:
    modules = '{"objective.critic": {"lr": 0.1}, "encoder": {"lr": 0.2}}'
    chosen = ["model.name=vae/conv", "objective.name=factor", f"training.modules={modules}"]
    run = resolve(config.load(Run, chosen, []))
    assert set(with_params(run, {}).training.modules) == {"objective.critic", "encoder"}
    assert set(with_params(run, {"objective.name": "elbo"}).training.modules) == {"encoder"}
    other = with_params(run, {"model.name": "vae/resnet"})
    assert set(other.training.modules) == {"objective.critic"}


def default_preset(job: str) -> str:
    """The preset that a job starts from unless it is told another."""
    given: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "main", lambda name, stages, preset: given.append(preset))
        runpy.run_path(str(JOBS / f"{job}.py"), run_name="__main__")
    return given[0]


def test_what_sweep_vae_searches_unless_told_otherwise_covers_networks_and_objectives() -> None:
    preset = default_preset("sweep_vae")
    run = resolve(config.load(Run, [], [config.read_yaml(JOBS / "presets" / f"{preset}.yaml")]))
    space = space_of(run)
    networks = space["model.name"]["choice"]
    objectives = space["objective.name"]["choice"]
    assert len(networks) >= 3
    assert len(objectives) >= 4

    # each pair is drawn, and is a model and an objective with the options that it alone has
    points = examples(space, 400)
    conditional = [name for name, entry in space.items() if "when" in entry]
    met = set()
    facts = Facts(32, 32, 1)
    for params in points:
        pair = (params["model.name"], params["objective.name"])
        if pair not in met:
            made = with_params(run, params)
            model = registry.build("models", made.model, facts)
            registry.build("objectives", made.objective, facts, model)
        met.add(pair)
    assert met == set(itertools.product(networks, objectives))
    for name in conditional:
        assert 0 < sum(name in params for params in points) < len(points), name
    told = {other for name in conditional for other in space[name]["when"]}
    assert {"model.name", "objective.name"} <= told


def test_a_parameter_that_the_model_does_not_have_is_refused_by_name() -> None:
    run = resolve(Run())
    with pytest.raises(UserError, match=r"gan/dcgan has no option 'widht'.*'width'"):
        with_params(run, {"model.widht": 8})


def test_trials_keep_their_numbers_over_a_gap_that_a_kill_left() -> None:
    assert [number_of(proposed, [1, 2]) for proposed in range(4)] == [1, 2, 3, 4]
    assert number_of(5, []) == 5


# -- a study in Ray --------------------------------------------------------------------------------------------------

STUDY = """
import sys
from pathlib import Path

from facefactory import scratch, search, surroundings
from facefactory.results import Goal
from facefactory.trials import Rung, State, Trial

surroundings.settle(started_by_us=False)


def trial(folder, params, report):
    import os, ray, json

    names = [name for name in os.environ if name.startswith(("RAY_", "TUNE_", "TORCH", "WORLD", "RANK"))]
    facts = {"temporary": ray.get_runtime_context().get_temp_dir(), "names": names}
    for parent in [Path(facts["temporary"]), Path(facts["temporary"]).parent]:
        facts[parent.name if parent.name == "ray" else "parent"] = parent.stat().st_mode & 0o7777
    (folder.path / "facts.json").write_text(json.dumps(facts))
    report(Rung(1.0, {"fit": params["x"]}))


study = search.Study(
    folder=Path(sys.argv[1]),
    space={"x": {"choice": [0.25, 0.5]}},
    options=search.Sweep(sampler="grid", trials=2, parallel=1, early_stopping=False, min_kimg=1, max_kimg=1),
    seed=0,
    trial=trial,
    threads=1,
    goal=Goal("fit", "lower"),
    gpus=0.0,
    needs_gpus=False,
    should_stop=lambda: False,
    refuse=lambda point: None,
    ray=None,
)
print([trial.rungs[0].scores["fit"] for trial in search.run(study)])
"""
LEFT = {  # by a shell, a container or another launcher
    "RAY_ADDRESS": "127.0.0.1:6379",
    "RAY_TMPDIR": "/missing",
    "RAY_AUTH_MODE": "disabled",
    "RAY_JOB_CONFIG_JSON_ENV_VAR": "{",
    "RAY_RUNTIME_ENV_HOOK": "no.such.hook",
    "RAY_grpc_enable_http_proxy": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1000",
    "TUNE_MAX_PENDING_TRIALS_PG": "none",
    "WORLD_SIZE": "4",
    "RANK": "1",
    "http_proxy": "http://127.0.0.1:9",
    "grpc_proxy": "http://127.0.0.1:9",
    "TMPDIR": "/missing",
}


def test_a_study_has_a_ray_of_its_own_whatever_a_shell_says_and_nobody_else_reaches_its_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "study.py").write_text(STUDY)
    line = [sys.executable, "study.py", str(tmp_path / "study")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **LEFT}
    ran = subprocess.run(
        line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (ran.returncode, ran.stdout) == (0, "[0.25, 0.5]\n"), ran.stderr
    assert "Traceback" not in ran.stderr
    first, second = (
        json.loads(path.read_text())
        for path in (tmp_path / "study" / "trials").glob("*/facts.json")
    )
    for facts in (first, second):
        assert facts["parent"] == 0o700
        assert Path(facts["temporary"]).name == "ray"
        assert not {
            "RAY_ADDRESS",
            "RAY_TMPDIR",
            "RAY_RUNTIME_ENV_HOOK",
            "WORLD_SIZE",
            "RANK",
        } & set(facts["names"])
    assert not Path(first["temporary"]).parent.exists()
