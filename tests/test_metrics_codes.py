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
    assert mixed < 0.6 * best

    # DCI's disentanglement does not mind two dimensions for one factor; its completeness does
    twice = np.hstack([perfect, perfect])
    if name != "dci":
        assert main(name, twice, factors) < 0.1 * best


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
    found = _factors.information(sent, sent ^ flips)
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
    np.testing.assert_allclose(shares, [1, 0, 1], atol=1e-9)
