"""What is said of dimensions: names by a fixed grammar, other trainings, and how often a name is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import yaml
from pydantic import TypeAdapter

from facefactory.data.sources import drawn
from facefactory.facts import Label
from facefactory.interpret import claims, effects, names, stability
from facefactory.interpret.claims import Activity
from facefactory.interpret.names import Names
from facefactory.metrics import Array
from facefactory.metrics.codes import dci, mig
from facefactory.results import Claim, Contrast, Control, Effect, Estimate

BINARY = Label("binary", ("0", "1"))
NUMBER = Label("real")
DRAWN = names.of("drawn")
LEAST = 0.2


def said(
    codes: Array, labels: dict[str, Any], words: Names = DRAWN, **schema: Label
) -> tuple[list[Claim], effects.Table]:
    """A claim for each dimension, all of them active; labels that `schema` lacks have two classes."""
    columns = {name: np.asarray(values, np.float64) for name, values in labels.items()}
    kinds = {name: schema.get(name, BINARY) for name in labels}
    alone = np.arange(len(codes))
    table = effects.table(
        codes,
        columns,
        kinds,
        alone,
        attribute=words.attribute,
    )
    active = [Activity(1.0, 1.0, 10.0, None)] * codes.shape[1]
    return claims.claims_of("mu", table, active, words, LEAST), table


def attributes(found: tuple[list[Claim], effects.Table]) -> list[str]:
    return [one.attribute for one in found[0]]


def coins(count: int, columns: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 2, (count, columns)).astype(np.float64)


def noise(count: int, columns: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(count, columns))


def follower(cause: Array, phi: float, seed: int = 2) -> Array:
    """A coin whose correlation with another one is phi."""
    kept = np.random.default_rng(seed).random(len(cause)) < (1 + phi) / 2
    return np.where(kept, cause, 1 - cause)


# -- the grammar ---------------------------------------------------------------------------


def test_the_sentence_is_that_of_the_grammar() -> None:
    contrast = Contrast(
        "hair_color",
        "blond",
        "auroc",
        0.2,
        5000,
    )
    effect = Effect(
        0.93,
        0.92,
        0.94,
        1e-12,
        0.3,
        Estimate(0.91, 0.9, 0.92),
        1e-9,
    )
    one = Claim(
        "mu",
        23,
        "controls",
        "hair colour",
        "dark",
        "blond",
        contrast,
        effect,
        True,
    )
    repeated = dataclasses.replace(
        one,
        seeds=3,
        runs=3,
    )
    assert repeated.words() == (
        "dim 23 = hair colour (dark → blond), AUROC .91 [.90, .92] given the rest, q = 1e-09, "
        "controls, exclusive, in 3 of 3 seeds"
    )

    # of one training, where nothing was walked
    alone = dataclasses.replace(
        one,
        verdict="goes with",
        exclusive=False,
    )
    assert alone.words().endswith("q = 1e-09, goes with, control not tested")


def test_what_has_no_name_is_said_too() -> None:
    assert Claim("mu", 4, "unnamed").words() == "dim 4: unnamed, active"
    assert Claim("mu", 4, "inactive").words() == "dim 4: inactive"
    once = Claim(
        "mu",
        4,
        "unnamed",
        unstable="glasses",
        seeds=1,
        runs=3,
    )
    assert once.words() == "dim 4: unnamed, active; glasses in 1 of 3 seeds only"


def test_a_claim_is_the_same_after_it_was_written_and_read() -> None:
    estimate = Estimate(0.1, 0.05, 0.15)
    control = Control(
        dimension=0,
        contrast="A",
        deviations=[-3.0, 3.0],
        judged=[0.1, 0.9],
        judged_low=[0.0, 0.8],
        judged_high=[0.2, 1.0],
        slope=estimate,
        embedded=None,
        composition=0.1,
        effectiveness=0.9,
        minimality=0.2,
        identity=0.8,
        others={"B": estimate},
        reliability=estimate,
        holds=True,
    )

    # of a planted dimension
    label = coins(400, 1)
    found = said(label + 0.1 * noise(400, 1), {"A": label[:, 0]})[0][0]
    whole = claims.controlled(found, control)
    assert whole.verdict == "controls"
    assert TypeAdapter(Claim).validate_json(json.dumps(dataclasses.asdict(whole))) == whole
    assert (
        ", goes with, does not control"
        in claims.controlled(found, dataclasses.replace(control, holds=False)).words()
    )


@pytest.mark.parametrize(
    "path", sorted(Path(names.__file__).parent.glob("*.yaml")), ids=lambda path: path.stem
)
def test_words_of_a_set_are_pairs_and_no_label_has_two_attributes(path: Path) -> None:
    groups = yaml.safe_load(path.read_text())
    labels = [label for group in groups.values() for label in group]
    assert len(labels) == len(set(labels))
    assert {len(ends) for group in groups.values() for ends in group.values()} <= {0, 2}
    assert (path.parents[3] / "shards" / path.name).is_file()  # a recipe that is called so


def test_the_words_know_all_labels_of_drawn_faces_and_of_celeba() -> None:
    table = drawn.table(drawn.Options(images=2))
    assert set(table.columns) == DRAWN.attributes.keys()
    celeba = names.of("celeba").attributes
    assert len(celeba) == 40
    assert set(drawn.COLORED) | set(drawn.ATTRIBUTES) <= celeba.keys()
    assert names.of("a set of my own").attribute("Hat") == "Hat"


def test_synonyms_are_one_attribute_whose_strongest_has_the_word_for_both_ends() -> None:
    color = np.random.default_rng(0).integers(0, 5, 4000)
    brightness = np.array([0.0, 1.0, 4.0, 3.0, 2.0])[color]
    labels = {
        "Black_Hair": color == 0,
        "Blond_Hair": color == 2,
        "Smiling": coins(4000, 1, 7)[:, 0],
    }
    codes = np.stack([brightness + 0.3 * noise(4000, 1)[:, 0]], 1)
    light, dark = (said(sign * codes, labels)[0][0] for sign in (1, -1))
    assert {light.attribute, dark.attribute} == {"hair colour"}
    assert light.exclusive
    assert (light.low, light.high) == (dark.high, dark.low)

    # of one label's classes, that at the other end has the other word
    kinds = Label("categorical", ("black", "brown", "blond", "gray", "red"))
    one = said(
        codes, {"hair_color": color, "yaw": noise(4000, 1)[:, 0]}, hair_color=kinds, yaw=NUMBER
    )
    ends = {one[0][0].low, one[0][0].high}
    assert ends == {"black", "blond"}


# -- confounders ---------------------------------------------------------------------------


def test_what_another_label_explains_is_said_and_has_no_name() -> None:
    male = coins(5000, 1)[:, 0]
    beard = follower(male, 0.6)
    labels = {
        "Male": male,
        "Beard": beard,
        "Hat": coins(5000, 1, 5)[:, 0],
    }
    codes = noise(5000, 2)
    codes[:, 0] += 2 * male
    found, table = said(codes, labels, Names())
    assert attributes((found, table)) == ["Male", ""]
    beard_cell = table.rows[0][[one.name for one in table.contrasts].index("Beard")]
    assert beard_cell.low > 0.6  # it goes with beards
    assert beard_cell.explained_by == "Male"
    assert table.among_labels["Male"]["Beard"] == pytest.approx(0.6, abs=0.05)

    # where nobody is said to be male, the beard is all that is known
    assert attributes(said(codes[:, :1], {"Beard": beard, "Hat": labels["Hat"]}, Names())) == [
        "Beard"
    ]


def test_a_pair_of_factors_correlated_at_08_is_told_apart() -> None:
    for seed in range(5):
        first = coins(5000, 1, seed)[:, 0]
        second = follower(first, 0.8, seed + 50)
        codes = noise(5000, 4, seed + 100)
        codes[:, 1] += 2 * first
        codes[:, 2] += 2 * second
        assert attributes(said(codes, {"A": first, "B": second})) == ["", "A", "B", ""]


def test_two_numbers_correlated_at_08_are_told_apart() -> None:
    numbers = noise(5000, 2, 3)
    numbers[:, 1] = 0.8 * numbers[:, 0] + 0.6 * numbers[:, 1]
    codes = numbers + 0.5 * noise(5000, 2, 4)
    labels = {"A": numbers[:, 0], "B": numbers[:, 1]}
    assert attributes(
        said(
            codes,
            labels,
            A=NUMBER,
            B=NUMBER,
        )
    ) == ["A", "B"]


def test_labels_that_are_one_and_the_same_name_nothing_unless_they_are_synonyms() -> None:
    label = coins(2000, 1)[:, 0]
    codes = label[:, None] + 0.1 * noise(2000, 1)
    found, table = said(codes, {"A": label, "B": label})
    assert found[0].verdict == "unnamed"
    assert table.rows[0][0].absent == "too few faces are alike in the other labels"
    synonyms = Names({"A": "hat", "B": "hat"})
    assert attributes(said(codes, {"A": label, "B": label}, synonyms)) == ["hat"]


# -- where figures of whole codes mislead (Joshi et al., arXiv 2602.24278): what is said there -------


def mean_best_correlation(codes: Array, factors: Array) -> float:
    """MCC: each factor's correlation with the dimension that is paired with it."""
    count = factors.shape[1]
    whole = np.abs(np.corrcoef(factors, codes, rowvar=False))[:count, count:]
    rows, columns = scipy.optimize.linear_sum_assignment(-whole)
    return float(whole[rows, columns].mean())


def test_a_factor_that_follows_another_has_a_correlation_and_no_name() -> None:
    first = noise(4000, 1)[:, 0]
    second = 0.9 * first + 0.19**0.5 * noise(4000, 1, 2)[:, 0]
    factors = np.stack([first, second], 1)
    codes = first[:, None] + 0.1 * noise(4000, 2, 3)  # the second factor is in neither dimension
    assert mean_best_correlation(codes, factors) > 0.9
    found = said(
        codes,
        {"A": first, "B": second},
        A=NUMBER,
        B=NUMBER,
    )
    assert attributes(found) == ["A", "A"]
    assert not any(one.exclusive for one in found[0])


def test_a_mixture_is_predicted_in_full_and_nothing_of_it_is_exclusive() -> None:
    factors = noise(4000, 2)
    codes = factors @ np.array([[1, 1], [1, -1]]) / 2**0.5
    assert dci.score(codes, factors)["informativeness"] > 0.99
    labels = {"A": factors[:, 0], "B": factors[:, 1]}
    found, table = said(
        codes,
        labels,
        A=NUMBER,
        B=NUMBER,
    )
    assert not any(one.exclusive for one in found)
    sizes = [abs(effect.value) for row in table.rows for effect in row]
    assert max(sizes) < 0.75


def test_many_dimensions_of_few_faces_correlate_by_chance_and_have_no_name() -> None:
    factors = noise(60, 3)
    codes = noise(60, 200, 5)
    assert mean_best_correlation(codes, factors) > 0.3
    labels = dict(zip("ABC", factors.T, strict=True))
    assert set(attributes(said(codes, labels, A=NUMBER, B=NUMBER, C=NUMBER))) == {""}


def test_a_factor_in_two_dimensions_has_no_gap_and_both_have_its_name() -> None:
    label = coins(4000, 1)
    codes = np.hstack([label, label]) + 0.1 * noise(4000, 2)
    assert mig.score(codes, label)["mig"] < 0.05
    found = said(codes, {"A": label[:, 0], "B": coins(4000, 1, 4)[:, 0]})
    assert attributes(found) == ["A", "A"]
    assert not any(one.exclusive for one in found[0])


def test_a_code_that_folds_a_factor_has_no_name_though_it_tells_of_it_in_nats() -> None:
    """What ranks do not see, mutual information does; a name needs a direction."""
    factor = noise(4000, 1)
    found, table = said(
        np.abs(factor),
        {"A": factor[:, 0]},
        A=NUMBER,
    )
    assert found[0].verdict == "unnamed"
    assert abs(table.rows[0][0].value) < 0.05
    assert table.rows[0][0].nats > 0.5


# -- other trainings -----------------------------------------------------------------------


def written(found: tuple[list[Claim], effects.Table]) -> dict[str, Any]:
    """As results.json has a training's space."""
    said_there, table = found
    columns = [contrast.name for contrast in table.contrasts]
    rows = [dict(zip(columns, map(dataclasses.asdict, row), strict=True)) for row in table.rows]
    space = {
        "contrasts": [dataclasses.asdict(contrast) for contrast in table.contrasts],
        "dimensions": [{"effects": row} for row in rows],
        "claims": [dataclasses.asdict(one) for one in said_there],
    }
    return {"spaces": {"mu": space}}


def test_a_name_is_said_if_two_of_three_trainings_have_a_dimension_like_it() -> None:
    labels = coins(2000, 2)
    by_name = {"A": labels[:, 0], "B": labels[:, 1]}
    own = np.hstack([2 * labels, np.zeros((2000, 1))]) + noise(2000, 3)
    turned = -own[:, ::-1]
    only_first = np.hstack([2 * labels[:, :1], np.zeros((2000, 2))]) + noise(2000, 3, 9)
    found, table = said(own, by_name)
    others = {
        str(n): written(said(codes, by_name)) for n, codes in enumerate((turned, only_first))
    }
    stable = stability.agreed(found, table, others)
    assert [one.words().rpartition(", ")[2] for one in stable[:2]] == [
        "in 3 of 3 seeds",
        "in 2 of 3 seeds",
    ]
    others["1"] = written(said(noise(2000, 3, 8), by_name))
    others["0"] = written(said(only_first, by_name))
    fewer = stability.agreed(found, table, others)
    assert [one.words() for one in fewer[1:]] == [
        "dim 1: unnamed, active; B in 1 of 3 seeds only",
        "dim 2: unnamed, active",
    ]
    assert stability.agreed(found, table, {}) == found


def test_the_matrix_does_not_depend_on_threads() -> None:
    labels = coins(500, 3)
    kinds = {"0": BINARY, "1": BINARY, "2": BINARY}
    columns = {str(number): column for number, column in enumerate(labels.T)}
    codes = labels[:, :1] + noise(500, 5)
    alone = np.arange(500)
    one, two = (effects.table(codes, columns, kinds, alone, threads=count) for count in (1, 2))
    assert one == two


def test_dimensions_are_matched_one_to_one_whatever_their_sign() -> None:
    effects_there = np.array([[0.1, 0.9], [-0.8, 0.0], [0.0, 0.0]])
    assert stability.matched(-effects_there[[1, 0, 2]], effects_there) == [1, 0, None]
    assert stability.matched(effects_there, effects_there[:1]) == [0, None, None]


# -- honesty -------------------------------------------------------------------------------


def null(seed: int) -> tuple[list[str], set[str]]:
    """Names of random codes of 600 faces, and those that are true: none."""
    labels = dict(zip("ABCDEF", coins(600, 6, seed).T, strict=True))
    return attributes(said(noise(600, 8, seed + 10**6), labels)), set()


def confounded(seed: int) -> tuple[list[str], set[str]]:
    """Names of codes that carry one label, which others follow, and those that are true."""
    rng = np.random.default_rng(seed)
    cause = coins(1500, 1, seed)[:, 0]
    labels = {"A": cause, "F": coins(1500, 1, seed + 2 * 10**6)[:, 0]}
    for number, name in enumerate("BCDE"):
        labels[name] = follower(cause, rng.uniform(0.2, 0.7), 10 * seed + number)
    codes = noise(1500, 4, seed + 10**6)
    codes[:, 0] += rng.uniform(0.5, 3) * cause
    codes[:, 1] -= rng.uniform(0.5, 3) * cause
    return attributes(said(codes, labels)), {"A"}


def wrong(world: Any, seeds: range) -> float:
    """Share of models with a name that is not true."""
    count = 0
    for seed in seeds:
        names_there, true = world(seed)
        count += any(name and name not in true for name in names_there)
    return count / len(seeds)


worlds = pytest.mark.parametrize("world", [null, confounded])


@worlds
def test_few_models_have_a_wrong_name(world: Any) -> None:
    assert wrong(world, range(10)) == 0


@pytest.mark.slow
@worlds
def test_of_a_thousand_models_one_in_twenty_at_most_has_a_wrong_name(world: Any) -> None:
    assert wrong(world, range(1000)) <= 0.05


def recovered(seeds: range) -> float:
    """Share of the planted dimensions of 5,000 drawn faces' labels that have their name."""
    hits = []
    for seed in seeds:
        table = drawn.table(drawn.Options(images=5000, seed=seed))
        shown = (
            "Eyeglasses",
            "Smiling",
            "Blond_Hair",
            "yaw",
            "skin_tone",
            "beard",
            "background_shade",
        )
        truth = [
            "glasses",
            "smile",
            "hair colour",
            "yaw",
            "skin",
            "beard",
            "background's brightness",
        ]
        kinds = {name: NUMBER for name in shown if name not in {*drawn.ATTRIBUTES, *drawn.COLORED}}
        labels = {name: table[name].to_numpy(np.float64) for name in shown}

        # a dimension each, in another order
        standard = [(column - column.mean()) / column.std() for column in labels.values()]
        order = np.random.default_rng(seed).permutation(len(shown))
        codes = np.stack(standard, 1)[:, order] + noise(5000, len(shown), seed)
        found = attributes(said(codes, labels, **kinds))
        hits += [found[place] == truth[number] for place, number in enumerate(order)]
    return float(np.mean(hits))


def test_planted_maps_are_recovered() -> None:
    assert recovered(range(2)) >= 0.95


@pytest.mark.slow
def test_planted_maps_of_a_hundred_sets_are_recovered() -> None:
    assert recovered(range(100)) >= 0.95
