"""The sample order: exact quotas, pinned values, flat memory."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from facefactory.data.order import ALGORITHM, Order, permute

STRATA = (np.array([3, 4, 29]), np.arange(5, 22), np.array([0, 1, 2, 25, 26]))  # of 30 images; some are in no stratum


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 65, 1000])
def test_an_epoch_shows_every_image_exactly_once(count: int) -> None:
    order = Order(count, seed=3)
    for epoch in range(4):
        drawn = order.ids(epoch * count, (epoch + 1) * count)
        assert sorted(drawn) == list(range(count))


def test_a_virtual_epoch_gives_every_image_of_a_stratum_its_quota_rounded_up_or_down() -> None:
    order = Order(30, seed=5, strata=STRATA)
    for epoch in range(20):
        counts = np.bincount(order.ids(30 * epoch, 30 * epoch + 30), minlength=30)
        for members in STRATA:
            assert counts[members].sum() == 10  # 30 slots shared by 3 strata
            assert set(counts[members]) <= {10 // len(members), -(-10 // len(members))}
        assert counts.sum() == 30  # nothing outside the strata


def test_slots_that_do_not_divide_go_to_the_first_strata() -> None:
    order = Order(11, seed=0, strata=(np.array([0, 1]), np.array([2]), np.arange(3, 11)))
    counts = np.bincount(order.ids(0, 11), minlength=11)
    assert [counts[:2].sum(), counts[2], counts[3:].sum()] == [4, 4, 3]


def test_which_members_get_the_odd_slots_changes_with_the_epoch() -> None:
    order = Order(30, seed=5, strata=STRATA)
    epochs = np.array([np.bincount(order.ids(30 * e, 30 * e + 30), minlength=30) for e in range(200)])
    assert np.allclose(epochs[:, STRATA[1]].mean(axis=0), 10 / 17, atol=0.2)
    assert np.allclose(epochs[:, STRATA[0]].mean(axis=0), 10 / 3, atol=0.2)


def test_the_first_values_never_change() -> None:
    # A file format: checkpoints rely on these values. A change needs a new algorithm name, and this test a new case.
    assert ALGORITHM == "feistel-6-v1"
    assert Order(10, seed=0).ids(0, 20).tolist() == [8, 1, 9, 0, 5, 2, 3, 7, 4, 6, 6, 2, 7, 9, 8, 5, 1, 0, 3, 4]
    assert Order(400, seed=7).ids(795, 805).tolist() == [215, 370, 19, 93, 35, 106, 19, 99, 398, 396]
    assert Order(10**9, seed=1).ids(0, 4).tolist() == [798852050, 251899624, 963026017, 448653993]
    assert permute(np.arange(5), 1000, 1, 2, 3).tolist() == [316, 658, 742, 349, 672]
    drawn = [8, 20, 26, 29, 7, 3, 29, 0, 29, 18, 19, 13, 12, 26, 17, 21, 4, 3, 26, 3]
    assert Order(30, seed=5, strata=STRATA).ids(25, 45).tolist() == drawn


@pytest.mark.parametrize("strata", [(), STRATA])
def test_the_sequence_does_not_depend_on_how_it_is_cut(strata: tuple[np.ndarray, ...]) -> None:
    order = Order(30, seed=1, strata=strata)
    whole = order.ids(7, 200)
    for cuts in ([7, 8, 200], [7, 30, 60, 200], [7, 29, 31, 31 + 64, 200]):
        assert np.concatenate([order.ids(a, b) for a, b in pairwise(cuts)]).tolist() == whole.tolist()


def test_seeds_and_epochs_differ() -> None:
    orders = {tuple(Order(50, seed).ids(50 * epoch, 50 * epoch + 50)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_a_billion_images_cost_no_memory() -> None:
    count, clock = 10**9, 10**9 - 300  # across an epoch's end
    order = Order(count, seed=2)
    order.ids(0, 10)
    tracemalloc.start()
    drawn = order.ids(clock, clock + 1024)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert drawn.min() >= 0 and drawn.max() < count
    assert len(set(drawn[:300])) == 300 and len(set(drawn[300:])) == 724
    assert drawn.mean() == pytest.approx(count / 2, rel=0.1)


def test_every_image_is_equally_likely_at_every_place() -> None:
    size, seeds = 6, 1500
    counts = np.zeros((size, size))
    for seed in range(seeds):
        counts[np.arange(size), permute(np.arange(size), size, seed, 0)] += 1
    statistic = ((counts - seeds / size) ** 2 / (seeds / size)).sum()  # chi-square, (size - 1)² degrees of freedom
    assert statistic < 25 + 5 * np.sqrt(2 * 25)


def test_every_permutation_of_four_is_equally_likely() -> None:
    seeds = 2400
    found: dict[tuple[int, ...], int] = {}
    for seed in range(seeds):
        order = tuple(permute(np.arange(4), 4, seed, 1).tolist())
        found[order] = found.get(order, 0) + 1
    assert len(found) == 24
    assert sum((n - seeds / 24) ** 2 / (seeds / 24) for n in found.values()) < 23 + 5 * np.sqrt(2 * 23)


def test_neighbouring_slots_land_anywhere() -> None:
    drawn = Order(100_000, seed=0).ids(0, 20_000)
    gaps = np.abs(np.diff(drawn)) / 100_000
    assert gaps.mean() == pytest.approx(1 / 3, abs=0.01)  # mean distance of two uniform draws
