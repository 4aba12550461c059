"""Scores of whole codes: perfect, constant, duplicated and rotated ones have answers that are known."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from facefactory import registry
from facefactory.metrics import Array
from facefactory.metrics.codes import _attributes, _factors, dci

FOLDER = "metrics.codes"
EVERY = registry.names(FOLDER)
MAIN = {"mig": "mig", "dci": "disentanglement"}  # others: the first that they name
MIND_NO_COPIES = {"dci", "dci_trees", "dci_es", "modularity", "factor_vae"}
MIND_NO_ROTATION = {"dci_es", "dci_trees", "factor_vae"}
every_metric = pytest.mark.parametrize("name", EVERY)
N = 3000


def score(name: str, codes: Array, factors: Array) -> dict[str, float]:
    found: dict[str, float] = registry.module(FOLDER, name).score(codes, factors)
    return found


def main(name: str, codes: Array, factors: Array) -> float:
    """The value by which a metric is known."""
    key = MAIN.get(name) or next(iter(registry.module(FOLDER, name).SCORES))
    return score(name, codes, factors)[key]


def noise(columns: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(N, columns))


def attributes(count: int = 4) -> Array:
    """Independent binary factors of unlike frequency."""
    drawn = np.random.default_rng(0).random((N, count))
    shares = np.linspace(0.3, 0.6, count)
    return (drawn < shares).astype(float)


def planted(factors: Array, blur: float = 0.02) -> Array:
    """A dimension a factor, and as many of noise that is small."""
    count = factors.shape[1]
    telling = factors + blur * noise(count)
    others = 0.01 * noise(count, 2)
    return np.hstack([telling, others])


def rotated(codes: Array) -> Array:
    """All dimensions mixed evenly, as far as a rotation does."""
    columns = codes.shape[1]
    drawn = np.random.default_rng(3).normal(size=(columns, columns))
    turn, _ = np.linalg.qr(drawn)
    return codes @ turn


# -- what holds of each ----------------------------------------------------------------------------


def test_there_are_the_scores_that_papers_compare() -> None:
    assert {"mig", "dci", "tad_nashae", "tad_infodiffusion"} <= set(EVERY)


@every_metric
def test_it_names_its_scores_and_its_paper(name: str) -> None:
    module = registry.module(FOLDER, name)
    factors = attributes()
    found = score(name, planted(factors), factors)
    assert found.keys() == module.SCORES.keys()
    for value in found.values():
        assert type(value) is float
        assert math.isfinite(value)
    assert set(module.SCORES.values()) <= {"higher", "lower"}
    assert re.search(r"20[12]\d", module.__doc__)


@every_metric
def test_perfect_beats_duplicated_and_rotated_and_a_constant_code_has_nothing(name: str) -> None:
    factors = attributes()
    perfect = planted(factors)
    best = main(name, perfect, factors)
    constant = np.full_like(perfect, 0.3)
    assert main(name, constant, factors) == 0
    assert main(name, noise(8), factors) < 0.1 * best
    mixed = main(name, rotated(perfect), factors)
    assert (mixed < 0.7 * best) == (name not in MIND_NO_ROTATION)

    # some do not mind two dimensions for one factor
    twice = np.hstack([perfect, perfect])
    assert (main(name, twice, factors) < 0.1 * best) == (name not in MIND_NO_COPIES)


@every_metric
def test_the_order_and_scale_of_dimensions_and_the_order_of_factors_do_not_matter(
    name: str,
) -> None:
    factors = attributes()
    scales = np.linspace(40, 90, 8)
    codes = scales * planted(factors)
    wanted = score(name, codes, factors)
    turned = 5 - codes[:, ::-1]
    found = score(name, turned, factors[:, ::-1])
    assert found == pytest.approx(wanted, abs=0.01)


@every_metric
def test_faces_whose_factor_is_not_known_are_left_out_for_that_factor(name: str) -> None:
    factors = attributes()
    codes = planted(factors)
    holes = factors.copy()
    holes[:500, 0] = np.nan
    spoilt = codes.copy()
    spoilt[:500, 0] = 0.5  # dimension 0 says nothing there
    wanted = main(name, codes, factors)
    assert main(name, spoilt, holes) == pytest.approx(wanted, rel=0.1)


@every_metric
def test_too_little_is_refused_with_what_is_needed(name: str) -> None:
    factors = attributes()
    codes = planted(factors)
    constant = np.ones((N, 3))
    lacking = [
        (codes[:19], factors[:19]),
        (codes[:, :1], factors),
        (codes, factors[:, :0]),
        (codes, constant),
    ]
    for few, known in lacking:
        with pytest.raises(ValueError, match=rf"{name} needs at least \d+"):
            score(name, few, known)
    codes[7, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        score(name, codes, factors)


# -- mutual information gap ------------------------------------------------------------------------


def test_mig_of_a_perfect_code_is_1_and_of_half_as_many_bits_a_half() -> None:
    drawn = np.random.default_rng(0).integers(0, 4, (N, 2))
    four = drawn.astype(float)
    codes = np.hstack([four, noise(1)])
    assert main("mig", codes, four) == pytest.approx(1, abs=0.02)

    # one bit of two, and nobody else tells any
    halves = four // 2
    assert main("mig", halves, four) == pytest.approx(0.5, abs=0.01)


def test_mig_takes_numbers_in_equal_shares() -> None:
    numbers = noise(2)
    alone = np.hstack([numbers, noise(2, 5)])
    assert main("mig", alone, numbers) > 0.6
    twice = np.hstack([numbers, numbers])
    assert main("mig", twice, numbers) == 0


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_information_of_a_noisy_channel_is_the_one_in_closed_form(p: float) -> None:
    number = np.arange(1000)
    sent = number % 2
    flips = number // 2 < 500 * (1 - p)  # as many of either
    (found,) = _factors.informations((sent ^ flips)[:, None], sent)
    kept = p * math.log(p)
    turned = (1 - p) * math.log(1 - p)
    wanted = math.log(2) + kept + turned
    assert found == pytest.approx(wanted, abs=1e-9)


# -- disentanglement, completeness, informativeness ------------------------------------------------


def test_dci_of_planted_codes() -> None:
    factors = noise(3)
    permuted = factors[:, ::-1]
    codes = np.hstack([permuted, noise(1, 9)])
    whole = score("dci", codes, factors)
    assert whole["disentanglement"] == pytest.approx(1, abs=0.05)
    assert whole["completeness"] == pytest.approx(1, abs=0.05)
    assert whole["informativeness"] == pytest.approx(1, abs=0.05)


def test_dci_of_two_dimensions_that_share_a_factor_each_speaks_of_it_alone() -> None:
    factors = noise(3)
    part = noise(3, 4)
    codes = np.hstack([factors - part, factors + part])
    found = score("dci", codes, factors)
    complete = 1 - math.log(2) / math.log(6)
    assert found["disentanglement"] == pytest.approx(1, abs=0.05)
    assert found["completeness"] == pytest.approx(complete, abs=0.05)
    assert found["informativeness"] == pytest.approx(1, abs=0.01)


def test_dci_of_a_dimension_that_speaks_of_two_factors() -> None:
    factors = noise(3)
    both = factors[:, 0] + factors[:, 1]
    codes = np.stack([both, factors[:, 2]], 1)
    found = score("dci", codes, factors)

    # it matters by two coefficients, and lies between two of three factors
    mixed = 1 - math.log(2) / math.log(3)
    weight = 2 * math.sqrt(0.5)
    wanted = (weight * mixed + 1) / (weight + 1)
    assert found["disentanglement"] == pytest.approx(wanted, abs=0.05)
    assert found["informativeness"] == pytest.approx(2 / 3, abs=0.05)


def test_dci_predicts_each_of_many_classes_by_itself() -> None:
    drawn = np.random.default_rng(0).integers(0, 3, (N, 2))
    classes = drawn.astype(float)
    codes = np.hstack([classes == 1, classes == 2])
    found = score("dci", codes.astype(float), classes)
    assert found["disentanglement"] == pytest.approx(1, abs=0.02)
    assert found["informativeness"] == pytest.approx(1, abs=0.02)


def test_the_lasso_is_the_soft_threshold_on_inputs_that_do_not_correlate() -> None:
    inputs, _ = np.linalg.qr(noise(4))
    inputs = inputs * math.sqrt(N)
    wanted = np.array([[0.9], [-0.2], [0.05], [0.0]])
    paths = dci.lasso(inputs, inputs @ wanted)
    for strength, found in zip(dci.STRENGTHS, paths, strict=True):
        size = np.maximum(np.abs(wanted) - strength, 0)
        shrunk = np.sign(wanted) * size
        np.testing.assert_allclose(found, shrunk, atol=1e-9)


def test_trees_see_what_lies_at_both_ends_and_a_line_does_not() -> None:
    factors = noise(2)
    middle = (np.abs(factors) < 0.7).astype(float)
    lines = score("dci", factors, middle)
    trees = score("dci_trees", factors, middle)
    assert lines["informativeness"] < 0.05
    assert trees["informativeness_trees"] > 0.9
    assert trees["disentanglement_trees"] > 0.9


def test_trees_of_numbers_that_are_mixed_do_not_lie_on_one_place() -> None:
    factors = noise(4)
    straight = score("dci_trees", factors, factors)
    mixed = score("dci_trees", rotated(factors), factors)
    assert straight["disentanglement_trees"] > 0.9
    assert mixed["disentanglement_trees"] < 0.5 * straight["disentanglement_trees"]


def test_a_factor_that_needs_a_curve_is_less_explicit_than_one_that_a_line_predicts() -> None:
    factors = noise(3)
    line = score("dci_es", factors, factors)
    curve = score("dci_es", factors, np.square(factors))
    assert line["explicitness"] == pytest.approx(1, abs=0.01)
    assert curve["explicitness"] < 0.8
    assert line["size"] == 1


# -- one dimension against the others --------------------------------------------------------------


def test_sap_of_numbers_is_the_gap_between_squared_correlations() -> None:
    factor = noise(1)
    codes = np.hstack([factor, factor + noise(1, 5)])  # the second shares half of the variance
    assert main("sap", codes, factor) == pytest.approx(0.5, abs=0.03)


def test_sap_of_classes_is_the_gap_between_accuracies() -> None:
    label = attributes(1)
    flips = np.arange(N)[:, None] % 10 == 0  # wrong in a tenth
    codes = np.hstack([label, np.where(flips, 1 - label, label)])
    assert main("sap", codes, label) == pytest.approx(0.2, abs=0.01)


def test_modularity_falls_with_what_a_dimension_tells_of_a_second_factor() -> None:
    factors = attributes(3)
    both = 2 * factors[:, :1] + factors[:, 1:2]
    codes = np.hstack([both, 0 * both])  # the other tells nothing, and does not count
    wanted = 1 - 0.5 * (_nats(factors[:, 0], factors[:, 1]) ** 2)
    assert main("modularity", codes, factors) == pytest.approx(wanted, abs=0.02)


def _nats(first: Array, second: Array) -> float:
    """The smaller entropy of two coins by the larger: what a dimension that knows both tells of each."""
    entropies = [
        _factors.entropy(np.bincount(one.astype(int)).astype(float)) for one in (first, second)
    ]
    return min(entropies) / max(entropies)


def test_factor_vae_is_the_share_of_votes_that_hit_above_guessing() -> None:
    factors = attributes(2)
    codes = np.hstack([factors[:, :1], noise(1, 3)])  # the second factor has no dimension
    assert 0.4 < main("factor_vae", np.hstack([codes, noise(1, 4)]), factors) < 1
    assert main("factor_vae", planted(factors), factors) == 1


# -- total AUROC difference ------------------------------------------------------------------------

TADS = ["tad_nashae", "tad_infodiffusion"]
both = pytest.mark.parametrize("name", TADS)


@both
def test_tad_is_half_for_each_attribute_that_one_dimension_alone_knows(name: str) -> None:
    factors = attributes()
    codes = planted(factors)
    codes[:, 4:] = noise(4, 7)
    found = score(name, codes, factors)
    assert found[f"{name}_captured"] == 4
    assert 4 * 0.45 < found[name] <= 4 * 0.5


@both
def test_tad_counts_no_attribute_that_follows_another_and_no_number(name: str) -> None:
    factors = attributes(3)
    same = np.hstack([factors, factors[:, :1]])
    found = score(name, planted(same), same)
    assert found[f"{name}_captured"] == 2
    numbers = np.hstack([factors, noise(1, 8)])
    found = score(name, planted(numbers), numbers)
    assert found[f"{name}_captured"] == 3


@both
@pytest.mark.parametrize(("shift", "captured"), [(0.5, 0), (2.0, 1)])
def test_an_attribute_known_by_less_than_three_quarters_is_not_captured(
    name: str, shift: float, captured: int
) -> None:
    """AUROC Φ(shift / √2): .64 and .92."""
    label = attributes(1)
    codes = noise(2)
    codes[:, 0] += shift * label[:, 0]
    found = score(name, codes, label)
    assert found[f"{name}_captured"] == captured


def test_the_interval_of_tad_holds_that_of_all_faces_and_chance_has_none() -> None:
    label = attributes(1)
    codes = noise(4)
    codes[:, 0] += 1.2 * label[:, 0]
    whole = score("tad", codes, label)["tad"]
    few = score("tad", codes[:400], label[:400])
    assert few["tad_low"] < whole < few["tad_high"]
    assert few["tad_null"] == 0
    exact = main("tad_infodiffusion", codes, label)
    assert whole == pytest.approx(exact, abs=0.01)


def test_nashae_gives_nothing_for_a_dimension_that_hardly_spans() -> None:
    factors = attributes(2)
    small = 0.15 * planted(factors, blur=0.0)
    assert main("tad_nashae", small, factors) == 0
    assert main("tad_infodiffusion", small, factors) > 0.8


def test_the_area_of_101_thresholds_is_nearly_the_exact_one() -> None:
    label = attributes(1)
    codes = noise(2)
    codes[:, 0] += 1.5 * label[:, 0]
    coarse = main("tad_nashae", codes, label)
    exact = main("tad_infodiffusion", codes, label)
    assert coarse == pytest.approx(exact, abs=0.01)


def test_the_share_that_another_attribute_takes() -> None:
    number = np.arange(1000)
    first = number % 2
    second = number // 2 % 2
    labels = np.stack([first, second, first], 1)
    shares = _attributes.followed(labels.astype(float))
    np.testing.assert_allclose(
        shares,
        [1, 0, 1],
        atol=1e-9,
    )
