"""Metrics of features against closed forms, published programs and planted faults. The oldest
ones: test_metrics.py."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch_fidelity import metric_isc, metric_kid

from facefactory.metrics import Array, moments
from facefactory.metrics.features import (
    authenticity,
    clipped_density_coverage,
    copying_test,
    density_coverage,
    fd_infinity,
    frechet_distance,
    inception_score,
    kernel_distance,
    kernel_distance_subsets,
    memorisation,
    mind,
    precision_recall,
    vendi,
)


def drawn(rows: int, columns: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(rows, columns))


PAIR = drawn(300, 16), drawn(200, 16, 1) * 1.2 + 0.3  # what published programs were run on


# -- Fréchet distance: rank -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reals", "fakes"),
    [
        (20, 30),
        (20, 300),
        (300, 20),
    ],
)
def test_fewer_images_than_features_give_the_singular_values_of_their_rows(
    reals: int, fakes: int
) -> None:
    mixing = drawn(100, 100, 5)
    real = drawn(reals, 100) @ mixing
    fake = drawn(fakes, 100, 1) @ mixing + 0.5
    rows = [
        (features - features.mean(0)) / np.sqrt(len(features) - 1) for features in (real, fake)
    ]
    cross = scipy.linalg.svdvals(rows[0] @ rows[1].T).sum()  # by rows: no covariance is made
    shift = ((real.mean(0) - fake.mean(0)) ** 2).sum()
    wanted = shift + (rows[0] ** 2).sum() + (rows[1] ** 2).sum() - 2 * cross
    assert frechet_distance.score(moments(real), moments(fake))["fd"] == pytest.approx(
        wanted, rel=1e-9
    )


def test_a_factor_has_as_many_columns_as_the_covariance_has_rank() -> None:
    covariance = moments(drawn(7, 30)).covariance
    factor = frechet_distance.factor(covariance)
    assert factor.shape == (30, 6)
    np.testing.assert_allclose(
        factor @ factor.T,
        covariance,
        atol=1e-12,
    )


def test_features_that_never_vary_add_nothing() -> None:
    real = drawn(100, 5)
    fake = drawn(100, 5, 1) * 2
    padded = [np.hstack([features, np.full((100, 3), 4.0)]) for features in (real, fake)]
    plain = frechet_distance.score(moments(real), moments(fake))["fd"]
    assert frechet_distance.score(*map(moments, padded))["fd"] == pytest.approx(plain, rel=1e-9)


# -- Fréchet distance at infinity -----------------------------------------------------------------


def test_the_line_through_a_plus_b_over_n_meets_infinity_at_a() -> None:
    sizes = np.linspace(500, 5000, 15)
    assert fd_infinity.intercept(sizes, 3.5 + 700 / sizes) == pytest.approx(3.5, rel=1e-9)


def test_the_bias_of_few_fakes_is_taken_away() -> None:
    real = drawn(20_000, 16)
    plain = []
    at_infinity = []
    for seed in range(1, 7):
        fake = drawn(1000, 16, seed) + 0.05
        plain.append(frechet_distance.score(moments(real), moments(fake))["fd"])
        at_infinity.append(fd_infinity.score(real, fake)["fd_infinity"])
    truth = 16 * 0.05**2
    assert np.mean(plain) > truth + 0.06
    assert np.mean(at_infinity) == pytest.approx(truth, abs=0.03)


# -- kernel distance ------------------------------------------------------------------------------


def test_the_kernel_distance_of_subsets_is_torch_fidelitys() -> None:
    real = drawn(1200, 8)
    fake = drawn(1050, 8, 1) * 1.1 + 0.1
    scores = kernel_distance_subsets.score(real, fake)
    published = metric_kid.kid_features_to_metric(
        torch.from_numpy(real), torch.from_numpy(fake), verbose=False
    )
    assert scores["kd_subsets"] == pytest.approx(
        published[metric_kid.KEY_METRIC_KID_MEAN], rel=1e-9
    )
    assert scores["kd_subsets_deviation"] == pytest.approx(
        published[metric_kid.KEY_METRIC_KID_STD], rel=1e-6
    )
    assert scores["kd_subsets"] == pytest.approx(kernel_distance.score(real, fake)["kd"], rel=0.1)


@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
def test_the_interval_of_the_kernel_distance_holds_the_truth_in_at_least_90_of_100_cases(
    shift: float,
) -> None:
    far = drawn(4000, 5), drawn(4000, 5, 1) + shift
    truth = 0.0 if shift == 0 else kernel_distance.score(*far)["kd"]
    held = 0
    for seed in range(200):
        low, high = kernel_distance.interval(
            drawn(60, 5, 2 * seed + 10), drawn(80, 5, 2 * seed + 11) + shift
        )["kd"]
        held += low <= truth <= high
    assert held >= 180
    assert shift == 0 or held < 200  # nor is it as wide as can be


def test_the_interval_is_that_of_scores_without_each_image() -> None:
    real = drawn(9, 3)
    fake = drawn(7, 3, 1) + 0.5
    value = kernel_distance.score(real, fake)["kd"]
    low, high = kernel_distance.interval(real, fake)["kd"]
    variance = 0.0
    without_real = [kernel_distance.score(np.delete(real, i, 0), fake)["kd"] for i in range(9)]
    without_fake = [kernel_distance.score(real, np.delete(fake, i, 0))["kd"] for i in range(7)]
    for values in (without_real, without_fake):
        variance += (len(values) - 1) * np.var(values)
    assert high - value == pytest.approx(scipy.stats.t.ppf(0.975, 6) * np.sqrt(variance), rel=1e-9)
    assert high + low == pytest.approx(2 * value, rel=1e-9)


def test_the_interval_leaves_out_whole_people() -> None:
    people = np.array([5, 5, 5, 2, 2, 9, 9, 9, 9, 1])
    real = drawn(4, 3)[np.unique(people, return_inverse=True)[1]] + 0.1 * drawn(10, 3, 2)
    fake = drawn(300, 3, 1)
    _, high = kernel_distance.interval(real, fake, people)["kd"]
    value = kernel_distance.score(real, fake)["kd"]
    without = [
        kernel_distance.score(real[people != person], fake)["kd"] for person in np.unique(people)
    ]
    fakes = [kernel_distance.score(real, np.delete(fake, i, 0))["kd"] for i in range(300)]
    variance = 3 * np.var(without) + 299 * np.var(fakes)
    assert high - value == pytest.approx(scipy.stats.t.ppf(0.975, 3) * np.sqrt(variance), rel=1e-6)
    with pytest.raises(ValueError, match="2 real images beside those of any one person"):
        kernel_distance.interval(real, fake, np.array([0] * 9 + [1]))


# -- density and coverage -------------------------------------------------------------------------


def test_density_and_coverage_are_the_published_programs() -> None:
    assert density_coverage.score(*PAIR) == pytest.approx(
        {"density": 0.412, "coverage": 0.6733333333333333}, rel=1e-12
    )
    assert precision_recall.score(*PAIR) == pytest.approx(
        {"precision": 0.45, "recall": 0.9133333333333333}, rel=1e-12
    )


def test_density_of_one_distribution_is_1_and_coverage_1_less_a_half_to_the_power_of_k() -> None:
    scores = density_coverage.score(drawn(3000, 4), drawn(3000, 4, 1))
    assert scores["density"] == pytest.approx(1, abs=0.03)
    assert scores["coverage"] == pytest.approx(1 - 2**-5, abs=0.012)


def test_identical_sets_have_full_coverage_and_each_fake_lies_in_six_balls_on_average() -> None:
    real = drawn(100, 3)
    assert density_coverage.score(real, real) == {"density": 6 / 5, "coverage": 1}


def test_clipped_scores_are_those_of_the_authors_program() -> None:
    scores = clipped_density_coverage.score(*PAIR)
    assert scores["clipped_density"] == pytest.approx(0.3994334277620396, rel=1e-9)
    assert scores["clipped_coverage"] == pytest.approx(
        0.4079601990049751, abs=1 / 200
    )  # theirs is rounded up to 1/201


def test_expected_coverage_is_what_draws_give() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(
        4000
    ):  # K-th of 29 reals and 12 good fakes on a line: how many of the fakes are nearer
        radius = np.sort(rng.random(29))[4]
        shares.append(min((rng.random(12) < radius).sum(), 5) / 5)
    found = clipped_density_coverage.expected_coverage(np.array([0.0, 12.0, 1e6]), 30)
    assert found[0] == 0
    assert found[2] == pytest.approx(1, abs=1e-9)
    assert found[1] == pytest.approx(np.mean(shares), abs=0.015)


@pytest.mark.parametrize("junk", [0.0, 0.3, 0.7, 1.0])
def test_junk_costs_clipped_density_and_coverage_its_share(junk: float) -> None:
    fake = drawn(2000, 8, 1)
    fake[: int(2000 * junk)] += 1000
    scores = clipped_density_coverage.score(drawn(2000, 8), fake)
    assert scores["clipped_density"] == pytest.approx(1 - junk, abs=0.04)
    assert scores["clipped_coverage"] == pytest.approx(1 - junk, abs=0.04)


# -- MIND -----------------------------------------------------------------------------------------


def test_mind_is_that_of_the_authors_program() -> None:
    real, fake = PAIR
    assert mind.score(real[:200], fake)["mind"] == pytest.approx(8.422920942306519, rel=1e-5)
    assert mind.score(real, fake)["mind"] == pytest.approx(
        8.172379732131958, rel=1e-5
    )  # thinned to 200
    assert mind.score(fake, real)["mind"] == pytest.approx(8.172379732131958, rel=1e-5)


def test_mind_of_a_set_and_itself_is_0_and_sides_do_not_matter() -> None:
    real = drawn(500, 10)
    fake = drawn(500, 10, 1) + 1
    assert mind.score(real, real[::-1])["mind"] == 0
    assert mind.score(real, fake) == mind.score(fake, real)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_mind_of_a_shift_in_every_coordinate_is_3_d_times_its_square(
    shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mind, "DIRECTIONS", 2000)
    found = mind.score(drawn(4000, 64), drawn(4000, 64, 1) + shift)["mind"]
    assert found == pytest.approx(3 * 64 * shift**2, rel=0.1)


# -- inception score ------------------------------------------------------------------------------


def test_the_inception_score_is_torch_fidelitys() -> None:
    logits = 3 * drawn(537, 11)
    published = metric_isc.isc_features_to_metric(torch.from_numpy(logits))[
        metric_isc.KEY_METRIC_ISC_MEAN
    ]
    assert inception_score.score(logits, logits)["is"] == pytest.approx(published, rel=1e-9)


def test_the_inception_score_of_certain_answers_is_the_number_of_classes_and_of_one_answer_1() -> (
    None
):
    certain = np.where(np.eye(4)[np.arange(4000) % 4] == 1, 0.0, -1e4)
    assert inception_score.score(certain, certain)["is"] == pytest.approx(4, rel=0.01)
    assert inception_score.score(certain, certain[:1].repeat(100, 0))["is"] == pytest.approx(1)


# -- Vendi ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (7, 20)])
def test_orthogonal_images_count_each_and_identical_ones_as_one(rows: int, columns: int) -> None:
    orthogonal = 3 * np.eye(rows, columns)
    assert vendi.score(orthogonal, orthogonal)["vendi"] == pytest.approx(rows)
    assert vendi.score(orthogonal, orthogonal[:1].repeat(9, 0))["vendi"] == pytest.approx(1)


def test_vendi_is_the_same_by_the_images_and_by_the_features() -> None:
    few = drawn(10, 30)
    many = drawn(30, 10)
    for rows in (few, many):
        lengths = np.linalg.norm(
            rows,
            axis=1,
            keepdims=True,
        )
        values = scipy.linalg.eigvalsh((rows / lengths) @ (rows / lengths).T / len(rows))
        values = values[values > 1e-12]
        assert vendi.score(rows, rows)["vendi"] == pytest.approx(
            np.exp(-(values * np.log(values)).sum()), rel=1e-9
        )


def test_a_vector_of_zeros_has_no_cosine() -> None:
    with pytest.raises(ValueError, match="zeros has no cosine"):
        vendi.score(drawn(3, 2), np.array([[0.0, 0.0], [1.0, 0.0]]))


# -- copies ---------------------------------------------------------------------------------------


def test_exact_copies_are_not_authentic_and_far_images_are() -> None:
    train = drawn(300, 8)
    assert authenticity.score(train, train[:50])["authenticity"] == 0
    assert authenticity.score(train, train + 100)["authenticity"] == 1
    fresh = authenticity.score(train, drawn(2000, 8, 1))["authenticity"]
    assert fresh == pytest.approx(2 / 3, abs=0.15)  # well away from both


def test_authenticity_counts_by_hand() -> None:
    train = np.array([[0.0], [1.0], [5.0]])  # their own neighbours are 1, 1 and 4 away
    fake = np.array([[-0.9], [-1.1], [8.0], [9.5]])  # 0.9 and 1.1 from 0; 3 and 4.5 from 5
    assert authenticity.score(train, fake)["authenticity"] == 0.5


def test_the_copying_test_is_standard_normal_on_fresh_images_of_one_cell() -> None:
    values = []
    for seed in range(0, 300, 3):
        sets = (drawn(rows, 4, seed + number) for number, rows in enumerate((90, 60, 80)))
        values.append(copying_test.score(*sets)["c_t"])
    assert scipy.stats.kstest(values, "norm").pvalue > 0.01


def test_the_copying_test_is_far_below_0_on_copies_about_0_on_fresh_images_and_far_above_0_on_noise() -> (
    None
):
    train = drawn(1500, 20)
    held_out = drawn(800, 20, 1)
    copies = train[:600] + 0.05 * drawn(600, 20, 2)
    assert copying_test.score(train, held_out, copies)["c_t"] < -8
    assert abs(copying_test.score(train, held_out, drawn(600, 20, 3))["c_t"]) < 3
    assert copying_test.score(train, held_out, 3 * drawn(600, 20, 4))["c_t"] > 5


def test_copies_in_some_cells_only_are_seen() -> None:
    train, held_out, fake = (drawn(900, 6, seed) for seed in range(3))
    for rows in (train, held_out, fake):
        rows[:, 0] += 40 * (np.arange(900) % 3)
    fake[np.arange(900) % 3 == 1] = train[np.arange(900) % 3 == 1]
    assert copying_test.score(train, held_out, fake)["c_t"] < -3


def test_the_copying_test_is_mann_whitneys() -> None:
    near = drawn(40, 1)[:, 0]
    far = drawn(30, 1, 1)[:, 0] + 0.3
    p = scipy.stats.mannwhitneyu(
        near, far, alternative="less", method="asymptotic", use_continuity=False
    ).pvalue
    assert copying_test.z_score(far, near) == pytest.approx(scipy.stats.norm.ppf(p), rel=1e-9)


def test_more_features_than_training_images_and_one_direction_are_no_hindrance() -> None:
    wide = [drawn(60, 100, seed) for seed in range(3)]
    narrow = [drawn(500, 1, seed) for seed in range(3)]
    flat = [rows * [1.0, 0.0, 0.0] for rows in narrow]
    for sets in (wide, narrow, flat):
        assert abs(copying_test.score(*sets)["c_t"]) < 3.5


def test_training_features_of_low_rank_are_no_hindrance_but_one_image_over_and_over_is() -> None:
    mixing = drawn(3, 300, 9)
    sets = [drawn(400, 3, seed) @ mixing for seed in range(3)]
    assert abs(copying_test.score(*sets)["c_t"]) < 3.5
    with pytest.raises(ValueError, match="images that differ"):
        copying_test.score(sets[0][:1].repeat(400, 0), *sets[1:])


def test_the_nearest_ratio_is_0_for_copies_and_1_for_fresh_images() -> None:
    train = drawn(400, 5)
    held_out = drawn(1000, 5, 1)
    assert memorisation.score(train, held_out, train[:30])["nearest_ratio"] == 0
    assert memorisation.score(train, held_out, drawn(1000, 5, 2))[
        "nearest_ratio"
    ] == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match="not in the training set"):
        memorisation.score(train, train[:9], held_out)
