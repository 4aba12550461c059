"""Metrics against closed forms, naive loops and the published formulas."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch_fidelity import metric_fid, metric_kid, metric_prc

from facefactory.metrics import Array, auroc, delong, intervals, moments, spearman
from facefactory.metrics.features import (
    _kernel,
    _neighbours,
    frechet_distance,
    kernel_distance,
    precision_recall,
)


def fd(real: Array, fake: Array) -> float:
    return frechet_distance.score(moments(real), moments(fake))["fd"]


def kd(real: Array, fake: Array) -> float:
    return kernel_distance.score(real, fake)["kd"]


def pr(real: Array, fake: Array) -> tuple[float, float]:
    found = precision_recall.score(real, fake)
    return found["precision"], found["recall"]


def drawn(rows: int, columns: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def exact(rows: int, mean: list[float], deviations: list[float], seed: int = 0) -> Array:
    """A sample whose mean and covariance (with N - 1) are exactly diag(deviations²), not only in expectation."""
    centred = drawn(rows, len(mean), seed)
    centred -= centred.mean(0)
    white, _ = np.linalg.qr(centred)
    return white * np.sqrt(rows - 1) * np.array(deviations) + np.array(mean)


# -- Fréchet distance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(50, 4), (2, 1), (10, 30)],
    ids=["usual", "smallest", "fewer rows than columns"],
)
def test_frechet_distance_of_a_set_to_itself_is_0(rows: int, columns: int) -> None:
    features = drawn(rows, columns)
    assert fd(features, features) == pytest.approx(0, abs=1e-6 * features.var(0).sum())


def test_frechet_distance_of_shifted_sets_is_the_squared_shift() -> None:
    real = drawn(50, 3)
    assert fd(real, real + np.array([3.0, 0.0, 4.0])) == pytest.approx(25, rel=1e-9)


def test_frechet_distance_does_not_change_when_rows_are_shuffled_or_sides_swapped() -> None:
    real = drawn(40, 5)
    fake = 2 * drawn(60, 5, seed=1) + 1
    assert fd(real[::-1], fake) == pytest.approx(fd(real, fake), rel=1e-9)
    assert fd(fake, real) == pytest.approx(fd(real, fake), rel=1e-9)


def test_frechet_distance_of_diagonal_normals_is_the_sum_of_squared_differences_of_means_and_deviations() -> (
    None
):
    real = exact(40, [0.0, 1.0, -2.0], [1.0, 0.5, 3.0])
    fake = exact(
        60,
        [1.0, 1.0, 0.0],
        [2.0, 0.25, 3.0],
        seed=1,
    )
    assert fd(real, fake) == pytest.approx((1 + 0 + 4) + (1 + 0.0625 + 0), rel=1e-9)


def test_frechet_distance_of_single_features_is_that_of_diagonal_normals() -> None:
    assert fd(exact(9, [0.0], [1.0]), exact(9, [2.0], [4.0], seed=1)) == pytest.approx(
        4 + 9, rel=1e-9
    )


def test_frechet_distance_to_one_repeated_image_is_the_spread_of_the_others_and_the_squared_shift() -> (
    None
):
    real = exact(30, [0.0, 0.0], [1.0, 2.0])
    repeated = np.full((20, 2), 1.0)
    assert fd(real, repeated) == pytest.approx(2 + 1 + 4, rel=1e-6)


def test_frechet_distance_agrees_with_the_matrix_root_and_with_torch_fidelity() -> None:
    mixing = drawn(12, 12, seed=5)
    real = drawn(200, 12) @ mixing
    fake = drawn(300, 12, seed=1) @ mixing.T + 0.3
    cov_real = np.cov(real, rowvar=False)
    cov_fake = np.cov(fake, rowvar=False)
    shift = real.mean(0) - fake.mean(0)
    by_root = shift @ shift + np.trace(
        cov_real + cov_fake - 2 * scipy.linalg.sqrtm(cov_real @ cov_fake).real
    )
    first, second = (
        metric_fid.fid_features_to_statistics(torch.from_numpy(features))
        for features in (real, fake)
    )
    published = metric_fid.fid_statistics_to_metric(first, second, verbose=False)[
        metric_fid.KEY_METRIC_FID
    ]
    assert fd(real, fake) == pytest.approx(by_root, rel=1e-6)
    assert fd(real, fake) == pytest.approx(published, rel=1e-6)


# -- kernel distance -------------------------------------------------------------------------------------------------


def naive_kernel_distance(real: Array, fake: Array) -> float:
    def mean(pairs: list[tuple[Array, Array]]) -> float:
        return float(np.mean([(x @ y / len(x) + 1) ** 3 for x, y in pairs]))

    return (
        mean(list(itertools.permutations(real, 2)))
        + mean(list(itertools.permutations(fake, 2)))
        - 2 * mean(list(itertools.product(real, fake)))
    )


def test_kernel_distance_is_what_a_loop_over_all_pairs_gives() -> None:
    real = drawn(9, 4)
    fake = drawn(14, 4, seed=1) + 0.5
    assert kd(real, fake) == pytest.approx(naive_kernel_distance(real, fake), rel=1e-9)


def test_kernel_distance_of_points_is_known_by_hand() -> None:
    zeros, ones = (
        np.zeros((2, 2)),
        np.ones((3, 2)),
    )  # kernels: 0·0 -> 1, 0·1 -> 1, 1·1 -> (2/2 + 1)³ = 8
    assert kd(zeros, ones) == pytest.approx(1 + 8 - 2 * 1)
    assert kd(ones, ones) == pytest.approx(0, abs=1e-12)


def test_kernel_distance_agrees_with_torch_fidelity_when_its_one_subset_is_the_whole_set() -> None:
    real = drawn(60, 16)
    fake = drawn(60, 16, seed=1) * 1.2 + 0.2
    both = [torch.from_numpy(features) for features in (real, fake)]
    published = metric_kid.kid_features_to_metric(
        *both, kid_subsets=1, kid_subset_size=60, verbose=False
    )
    assert kd(real, fake) == pytest.approx(published[metric_kid.KEY_METRIC_KID_MEAN], rel=1e-6)


@pytest.mark.parametrize(("reals", "fakes"), [(40, 40), (40, 10)])
def test_kernel_distance_of_one_distribution_is_0_on_average_whatever_the_set_sizes(
    reals: int, fakes: int
) -> None:
    values = np.array([kd(drawn(reals, 4, 2 * n), drawn(fakes, 4, 2 * n + 1)) for n in range(600)])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 4 * error
    assert (values < 0).any()
    assert (values > 0).any()
    biased = values.mean() + 8 / fakes  # what the diagonal would add: E k(x, x) > 8 / fakes
    assert biased > 8 * error  # so the test above has the power to see it


@pytest.mark.parametrize("rows", [1, 7, 20, 1000])
def test_kernel_distance_does_not_depend_on_the_chunks(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = drawn(20, 3)
    fake = drawn(33, 3, seed=1) + 1
    monkeypatch.setattr(_kernel, "ROWS", rows)
    assert kd(real, fake) == pytest.approx(naive_kernel_distance(real, fake), rel=1e-9)


# -- precision and recall --------------------------------------------------------------------------------------------


def test_identical_sets_have_precision_1_and_recall_1() -> None:
    assert pr(drawn(30, 4), drawn(30, 4)) == (1, 1)


def test_far_sets_have_precision_0_and_recall_0() -> None:
    assert pr(drawn(30, 4), drawn(30, 4, seed=1) + 100) == (0, 0)


def test_one_repeated_image_has_precision_1_and_covers_itself_only() -> None:
    real = drawn(30, 4)
    assert pr(real, np.repeat(real[4:5], 30, axis=0)) == (1, 1 / 30)


def test_a_generator_of_some_modes_has_precision_1_and_their_share_as_recall() -> None:
    modes = [drawn(20, 3, seed) + 100 * seed for seed in range(4)]
    assert pr(np.concatenate(modes), modes[1]) == (1, 0.25)


def test_a_generator_that_adds_modes_has_recall_1_and_the_share_of_real_ones_as_precision() -> (
    None
):
    modes = [drawn(20, 3, seed) + 100 * seed for seed in range(4)]
    assert pr(modes[1], np.concatenate(modes)) == (0.25, 1)


def test_a_ball_reaches_to_the_third_neighbour_and_includes_its_edge() -> None:
    real = np.array(
        [[0.0], [1.0], [2.0], [3.0]]
    )  # radii 3, 2, 2, 3: together they reach from -3 to 6
    fake = np.array([[-3.0], [6.0], [-3.01], [6.01]])
    precision, _ = pr(real, fake)
    assert precision == 0.5


@pytest.mark.parametrize("size", [1, 3 * 4 * 80, 2**26])
def test_precision_and_recall_agree_with_torch_fidelity_in_blocks_of_any_size(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_neighbours, "BLOCK_BYTES", size)
    real = drawn(80, 3)
    fake = drawn(50, 3, seed=1) * [0.3, 2.0, 1.0] + 0.5
    published = metric_prc.calculate_precision_recall_full(
        torch.from_numpy(fake), torch.from_numpy(real), 3
    )
    found = pr(real, fake)
    assert found == pytest.approx(published, abs=1e-6)
    assert min(found) > 0.1
    assert max(found) < 1


# -- Cliff's delta ---------------------------------------------------------------------------------------------------


def pair_counting_auroc(codes: Array, labels: Array) -> float:
    """P(a 1 lies above a 0), ties counted half, by looking at every pair."""
    pairs = itertools.product(codes[labels == 1], codes[labels == 0])
    return float(
        np.mean([1.0 if one > zero else 0.5 if one == zero else 0.0 for one, zero in pairs])
    )


def test_the_matrix_counts_pairs_with_ties_and_without_faces_whose_label_is_missing() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 5, (40, 3)).astype(float)  # many ties
    labels = (rng.random((40, 3)) < [0.3, 0.6, 0.5]).astype(float)
    labels[:9, 2] = np.nan
    found = auroc.score(codes, labels)
    for number, label in enumerate(labels.T):
        known = np.isfinite(label)
        wanted = [pair_counting_auroc(code[known], label[known]) for code in codes.T]
        np.testing.assert_allclose(
            found[:, number],
            wanted,
            atol=1e-12,
        )


def test_a_perfect_code_scores_1_its_mirror_0_and_a_constant_code_a_half() -> None:
    labels = np.array([0.0, 0, 1, 1, 1])
    codes = np.stack([labels, -labels, np.full(5, 0.1)], 1)
    assert auroc.score(codes, labels[:, None]).tolist() == [[1], [0], [0.5]]


def test_a_duplicated_code_scores_the_same_and_order_is_all_that_counts() -> None:
    code = drawn(30, 1)
    labels = (drawn(30, 1, seed=1) > 0).astype(float)
    found = auroc.score(np.hstack([code, code, np.exp(3 * code)]), labels)
    assert found[0] == found[1] == found[2] != 0.5


def test_a_label_with_one_class_has_no_auroc() -> None:
    assert np.isnan(auroc.score(drawn(6, 2), np.ones((6, 1)))).all()


# -- DeLong ----------------------------------------------------------------------------------------------------------

# S100B of 113 patients after a subarachnoid haemorrhage, hundredths, by outcome (Turck et al., Intensive Care Medicine 2010, as in the R package pROC)
GOOD = """4 4 4 4 4 5 5 5 6 6 7 7 7 7 7 7 8 8 8 8 8 8 9 9 9 9 9 9 10 10 10 10 10 10 10 11 11 11 11
13 13 13 14 14 14 14 15 15 15 15 16 16 16 17 17 18 19 19 24 28 32 33 34 38 43 45 46 47 47
48 50 50"""
POOR = """3 7 7 7 8 9 9 10 10 11 12 13 13 14 16 22 23 25 26 27 30 32 33 35 41 44 44 48 49 52 56 58
70 71 71 74 77 82 86 96 207"""


def test_the_interval_by_delong_is_that_of_proc() -> None:
    good = np.array(GOOD.split(), float)
    poor = np.array(POOR.split(), float)
    assert (len(good), len(poor)) == (72, 41)
    codes = np.concatenate([good, poor])
    found = delong.compare(delong.order(codes), np.repeat([0.0, 1.0], [72, 41]))
    reach = 1.959964 * found.variance**0.5
    interval = (found.auroc, found.auroc - reach, found.auroc + reach)
    assert interval == pytest.approx((0.7314, 0.6301, 0.8326), abs=5e-5)


def by_pairs(codes: Array, cases: Array) -> tuple[float, float]:
    """AUROC and variance from all pairs, as they are defined."""
    wins = np.subtract.outer(codes[cases == 1], codes[cases == 0])
    kernel = 0.5 * (np.sign(wins) + 1)
    above = kernel.mean(1)
    below = kernel.mean(0)
    return kernel.mean(), above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)


@pytest.mark.parametrize("levels", [4, 10**6])
def test_delong_counts_pairs_with_and_without_ties_and_alone_everybody_is_a_person(
    levels: int,
) -> None:
    rng = np.random.default_rng(0)
    codes = np.floor(levels * rng.random(90))
    cases = rng.integers(0, 2, 90).astype(float)
    wanted = by_pairs(codes, cases)
    for groups in (None, np.arange(90)):
        found = delong.compare(delong.order(codes), cases, groups)
        assert (found.auroc, found.variance) == pytest.approx(wanted, abs=1e-12)


def test_within_strata_it_is_the_mean_over_cases_of_the_strata() -> None:
    rng = np.random.default_rng(1)
    codes = np.floor(20 * rng.random(120))
    cases = rng.integers(0, 2, 120).astype(float)
    strata = rng.integers(0, 3, 120)
    cases[strata == 2] = 1  # nobody to be compared with
    parts = [by_pairs(codes[strata == one], cases[strata == one])[0] for one in (0, 1)]
    counts = [cases[strata == one].sum() for one in (0, 1)]
    found = delong.compare(delong.order(codes, strata), cases)
    assert found.auroc == pytest.approx(np.average(parts, weights=counts), abs=1e-12)
    assert found.cases == sum(counts)


def test_variances_are_those_of_many_samples_also_by_person_and_within_strata() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(60), 4)
    values, variances = [], []
    for _ in range(200):
        cases = (rng.random(240) < 0.4).astype(float)
        strata = rng.integers(0, 3, 240)
        codes = rng.normal(size=60)[groups] + cases + strata + 0.5 * rng.normal(size=240)
        found = delong.compare(delong.order(codes, strata), cases, groups)
        values.append(found.auroc)
        variances.append(found.variance)
    assert np.mean(variances) == pytest.approx(np.var(values), rel=0.25)


# -- Spearman --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_spearman_is_scipys_and_its_variance_that_of_many_samples(rho: float) -> None:
    rng = np.random.default_rng(0)
    values, variances = [], []
    for _ in range(150):
        first, second = rng.normal(size=(2, 200))
        second = rho * first + (1 - rho**2) ** 0.5 * second
        value, variance = spearman.compare(spearman.ranks(first), spearman.ranks(second))
        values.append(value)
        variances.append(variance)
    assert value == pytest.approx(scipy.stats.spearmanr(first, second)[0], abs=1e-12)
    assert np.mean(variances) == pytest.approx(np.var(values), rel=0.3)


def test_ranks_within_strata_are_blind_to_what_strata_differ_by() -> None:
    strata = np.repeat([0, 1, 2], 50)
    first, second = np.random.default_rng(0).normal(size=(2, 150)) + 5 * strata
    value, _ = spearman.compare(spearman.ranks(first), spearman.ranks(second))
    within, _ = spearman.compare(spearman.ranks(first, strata), spearman.ranks(second, strata))
    assert value > 0.8
    assert abs(within) < 0.3


# -- bootstrap -------------------------------------------------------------------------------------------------------

GROUPS = np.repeat([7, -3, 20, 5], [1, 2, 3, 4])  # four people with 1 to 4 images


def test_the_bootstrap_draws_whole_people_as_often_as_there_are_people() -> None:
    chosen: list[tuple[int, ...]] = []

    def statistic(ids: npt.NDArray[np.int64]) -> float:
        times = np.bincount(ids, minlength=len(GROUPS))
        for name in np.unique(GROUPS):
            assert len(set(times[name == GROUPS])) == 1, "a person's images come together"
        chosen.append(tuple(int(times[name == GROUPS][0]) for name in np.unique(GROUPS)))
        return 0.0

    intervals.bootstrap(statistic, GROUPS, 50)
    assert len(chosen) == 50
    assert all(sum(times) == 4 for times in chosen)
    assert max(map(max, chosen)) > 1
    assert len(set(chosen)) > 10


def test_the_bootstrap_keeps_the_shape_of_the_statistic_and_repeats_itself() -> None:
    values = drawn(10, 3)
    first, second = (
        intervals.bootstrap(lambda ids: values[ids].mean(0), GROUPS, 20) for _ in range(2)
    )
    assert first.shape == (20, 3)
    np.testing.assert_array_equal(first, second)
    assert intervals.bootstrap(lambda ids: float(values[ids].mean()), GROUPS, 20).shape == (20,)


def test_the_interval_covers_the_truth_about_as_often_as_it_says_even_for_8_people() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    by_percentiles = 0
    people = np.repeat(np.arange(8), 5)
    classes = np.zeros(40)
    for _ in range(300):
        values = rng.normal(size=8)[people] + 0.1 * rng.normal(
            size=40
        )  # a person's images are alike

        def mean(ids: npt.NDArray[np.int64], values: Array = values) -> float:
            return float(values[ids].mean())

        value, reach, _ = intervals.student(mean, people, classes)
        covered += abs(value) <= reach
        low, high = np.quantile(intervals.bootstrap(mean, people), [0.025, 0.975])
        by_percentiles += low <= 0 <= high
    assert 0.91 * 300 < covered < 0.98 * 300
    assert (
        by_percentiles < covered
    )  # about 0.89; by image instead of by person it would be below 0.6


def test_the_rarest_class_gives_the_degrees_of_freedom_and_draws_without_a_value_are_left_out() -> (
    None
):
    people = np.arange(40)
    classes = np.array([1] * 3 + [0] * 30 + [2] * 7)

    def share(ids: npt.NDArray[np.int64]) -> float:
        return float((ids < 20).mean()) if (ids < 3).any() else float("nan")

    draws = intervals.bootstrap(share, people)
    assert 0 < np.isnan(draws).sum() < 100
    value, reach, p = intervals.student(share, people, classes)
    error = np.nanstd(draws, ddof=1)
    assert value == 0.5
    assert reach == pytest.approx(4.3027 * error, rel=1e-4)
    assert p == pytest.approx(2 * scipy.stats.t.sf(0.5 / error, 2))


def test_p_is_1_for_a_constant_0_and_0_for_a_constant_of_another_value() -> None:
    value, reach, p = intervals.student(
        lambda ids: np.array([0.0, 0.5]), np.arange(10), np.arange(10) % 2
    )
    assert value.tolist() == [0, 0.5]
    assert reach.tolist() == [0, 0]
    assert p.tolist() == [1, pytest.approx(0, abs=1e-9)]
