"""The language of spaces: families, alternatives, steps, values; and what is kept of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from facefactory import UserError, config, search, trials
from facefactory.run import JOBS, Run, resolve, space_of, with_params
from facefactory.search.space import (
    Space,
    asked,
    at,
    check_space,
    distributions,
    examples,
    grid,
    with_families,
)

FILE = """
training.lr: {log_uniform: [1.0e-4, 1.0e-2]}
families:
  gan/dcgan:
    model.width: {choice: [12, 16]}
    objective.critic: hinge
  gan/resnet:
    model.width: {choice: [4, 6, 12]}
    objective.terms.r1: null
data.flip: {choice: [true, false]}
"""


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    return space_of(resolve(config.load(Run, [f"sweep.space={path}"], [])))


def test_each_family_has_its_own_parameters_and_values(space: Space) -> None:
    met = set()
    for point in examples(space, 60):
        if point["model.name"] == "gan/dcgan":
            assert point["model.width"] in (12, 16)
            assert point["objective.critic"] == "hinge"
            assert "objective.terms.r1" not in point
        else:
            assert point["model.width"] in (4, 6, 12)
            assert point["objective.terms.r1"] is None
            assert "objective.critic" not in point
        met.add(point["model.width"])
    assert met == {4, 6, 12, 16}


def test_a_families_entry_for_one_key_is_another_parameter_to_the_sampler(space: Space) -> None:
    point = {
        "training.lr": 0.001,
        "model.name": "gan/resnet",
        "model.width": 12,
        "objective.terms.r1": None,
        "data.flip": True,
    }
    told = asked(point, space)
    assert 'model.width where {"model.name": "gan/resnet"}' in told
    assert "model.width" not in told
    assert "objective.terms.r1" not in told  # nobody draws it
    assert len(told) == 4


def test_what_is_kept_of_alternatives_is_one_distribution_with_all_their_values(
    space: Space,
) -> None:
    (point,) = examples(space, 1)
    kinds = distributions(point, space)
    assert kinds["model.width"].choices == (12, 16, 4, 6)
    assert kinds.keys() == point.keys() - {"objective.critic", "objective.terms.r1"}


def test_ranges_of_families_are_kept_as_the_range_over_all() -> None:
    low = {"log_uniform": [1e-4, 1e-3]}
    high = {"log_uniform": [1e-3, 1e-2]}
    families = {
        "a": {"lr": low},
        "b": {"lr": high},
    }
    space = with_families({"families": families}, "mine")
    for point in examples(space, 20):
        assert (point["lr"] <= 1e-3) == (point["model.name"] == "a")
        kept = distributions(point, space)["lr"]
        assert kept == optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)


@pytest.mark.parametrize(
    "point",
    [
        {
            "training.lr": 0.001,
            "model.name": "gan/resnet",
            "model.width": 12,
        },
        {
            "training.lr": 0.001,
            "model.name": "gan/dcgan",
            "model.width": 4,
            "objective.critic": "hinge",
            "data.flip": True,
        },
        {
            "training.lr": 0.001,
            "model.name": "gan/dcgan",
            "model.width": 12,
            "objective.critic": "wasserstein",
            "data.flip": True,
        },
    ],
    ids=["one is missing", "of another family", "another value"],
)
def test_a_point_of_another_space_is_known(space: Space, point: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"parameters|not .hinge|Invalid|not in"):
        distributions(point, space)


def test_a_grid_goes_through_families(space: Space) -> None:
    del space["training.lr"]
    points = grid(space)
    assert len(points) == 2 * (2 + 3)
    assert all(asked(point, space) for point in points)


@pytest.mark.parametrize(
    ("entry", "first", "last", "all_of_them"),
    [
        ({"int": [8, 24], "step": 4}, 8, 24, [8, 12, 16, 20, 24]),
        ({"int": [1, 3]}, 1, 3, [1, 2, 3]),
        ({"uniform": [0.0, 0.5], "step": 0.25}, 0.0, 0.5, [0.0, 0.25, 0.5]),
        ({"choice": ["a", None]}, "a", None, ["a", None]),
        ({"value": [1, 2]}, [1, 2], [1, 2], None),
        ({"log_int": [1, 4]}, 1, 4, [1, 2, 3, 4]),
    ],
    ids=str,
)
def test_shares_go_over_the_whole_range_and_optuna_draws_from_the_same(
    entry: dict[str, Any], first: Any, last: Any, all_of_them: list[Any] | None
) -> None:
    space: Space = {"it": entry}
    check_space(space, "mine")
    assert at(0.0, entry) == first
    assert at(1.0, entry) == last
    if all_of_them:
        assert {at(share / 100, entry) for share in range(101)} == set(all_of_them)
        assert {point["it"] for point in examples(space, 60)} == set(all_of_them)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"families": ["gan/dcgan"]}, r"families is \['gan/dcgan'\]; give"),
        ({"families": {"a": 3}}, "families is .*; give"),
        (
            {"model.name": {"choice": ["a"]}, "families": {"a": {}}},
            "families draw model.name already",
        ),
    ],
)
def test_families_that_are_none_are_refused(content: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=f"space mine: {words}"):
        with_families(content, "mine")


def test_alternatives_of_unlike_kinds_are_refused() -> None:
    families = {
        "a": {"x": {"int": [1, 2]}},
        "b": {"x": {"choice": [1, 2]}},
    }
    with pytest.raises(UserError, match=r"x has choices and ranges.*alternatives of one kind"):
        check_space(with_families({"families": families}, "mine"), "mine")


def test_a_step_belongs_to_ranges_that_have_one() -> None:
    with pytest.raises(UserError, match="allowed are"):
        check_space({"x": {"choice": [1, 2], "step": 1}}, "mine")


def test_trials_of_families_are_read_again(space: Space, tmp_path: Path) -> None:
    for number, point in enumerate(examples(space, 6)):
        trials.folder_of(tmp_path, trials.name_of(number, point)).begin(number, point)
    assert len(search.results(tmp_path, space)) == 6


def test_every_family_of_the_shipped_space_is_a_trial_with_its_own_critic() -> None:
    tree = config.read_yaml(JOBS / "presets" / "sweep-gan-orl32.yaml")
    run = resolve(config.load(Run, [], [tree]))
    space = space_of(run)
    families = space["model.name"]["choice"]  # type: ignore[call-overload]
    assert len(families) >= 4
    critics = {}
    for point in examples(space, 16):
        made = with_params(run, point)
        critics[made.model["name"]] = made.objective["critic"]["name"]
        assert ("r1" in made.objective["terms"]) == (made.model["name"] != "gan/resnet")
        assert ("r2" in made.objective["terms"]) == (made.model["name"] == "gan/r3")
    assert critics.keys() == set(families)
    assert critics["gan/r3"] == "relativistic"
