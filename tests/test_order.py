"""The sample order: exact quotas, pinned values, flat memory."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from facefactory.data.sets.order import ALGORITHM, Order, permute

SIZES = np.array([7, 7, 7, 7, 2])  # images per shard of 30
STRATA = (
    np.array([3, 4, 29]),
    np.arange(5, 22),
    np.array([0, 1, 2, 25, 26]),
)  # of 30 images; some are in no stratum


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 65, 1000])
def test_an_epoch_shows_every_image_exactly_once(count: int) -> None:
    order = Order(count, seed=3)
    for epoch in range(4):
        drawn = order.ids(epoch * count, (epoch + 1) * count)
        assert sorted(drawn) == list(range(count))


def test_a_virtual_epoch_gives_every_image_of_a_stratum_its_quota_rounded_up_or_down() -> None:
    order = Order(
        30,
        seed=5,
        strata=STRATA,
    )
    for epoch in range(20):
        counts = np.bincount(order.ids(30 * epoch, 30 * epoch + 30), minlength=30)
        for members in STRATA:
            assert counts[members].sum() == 10  # 30 slots shared by 3 strata
            assert set(counts[members]) <= {10 // len(members), -(-10 // len(members))}
        assert counts.sum() == 30  # nothing outside the strata


def test_slots_that_do_not_divide_go_to_the_first_strata() -> None:
    order = Order(
        11,
        seed=0,
        strata=(np.array([0, 1]), np.array([2]), np.arange(3, 11)),
    )
    counts = np.bincount(order.ids(0, 11), minlength=11)
    assert [counts[:2].sum(), counts[2], counts[3:].sum()] == [4, 4, 3]


def test_which_members_get_the_odd_slots_changes_with_the_epoch() -> None:
    order = Order(
        30,
        seed=5,
        strata=STRATA,
    )
    epochs = np.array(
        [np.bincount(order.ids(30 * e, 30 * e + 30), minlength=30) for e in range(200)]
    )
    assert np.allclose(epochs[:, STRATA[1]].mean(axis=0), 10 / 17, atol=0.2)
    assert np.allclose(epochs[:, STRATA[0]].mean(axis=0), 10 / 3, atol=0.2)


def test_the_first_values_never_change() -> None:
    # A file format: checkpoints rely on these values. A change needs a new algorithm name, and this test a new case.
    assert ALGORITHM == "feistel-6-v1"
    assert Order(10, seed=0).ids(0, 20).tolist() == [
        8,
        1,
        9,
        0,
        5,
        2,
        3,
        7,
        4,
        6,
        6,
        2,
        7,
        9,
        8,
        5,
        1,
        0,
        3,
        4,
    ]
    assert Order(400, seed=7).ids(795, 805).tolist() == [
        215,
        370,
        19,
        93,
        35,
        106,
        19,
        99,
        398,
        396,
    ]
    assert Order(10**9, seed=1).ids(0, 4).tolist() == [798852050, 251899624, 963026017, 448653993]
    assert permute(np.arange(5), 1000, 1, 2, 3).tolist() == [316, 658, 742, 349, 672]
    drawn = [8, 20, 26, 29, 7, 3, 29, 0, 29, 18, 19, 13, 12, 26, 17, 21, 4, 3, 26, 3]
    assert Order(30, seed=5, strata=STRATA).ids(25, 45).tolist() == drawn


def test_weights_share_the_slots_of_a_virtual_epoch() -> None:
    for epoch in range(10):
        drawn = Order(30, 5, STRATA, (1.0, 0.0, 2.0)).ids(30 * epoch, 30 * epoch + 30)
        counts = np.bincount(drawn, minlength=30)
        assert [counts[members].sum() for members in STRATA] == [10, 0, 20]
        assert set(counts[STRATA[0]]) == {3, 4}
        assert set(counts[STRATA[2]]) == {4}
    whole = Order(30, 5, STRATA).ids(0, 90)
    assert Order(30, 5, STRATA, (2.0, 2.0, 2.0)).ids(0, 90).tolist() == whole.tolist()
    quotas = np.bincount(
        Order(10, 0, (np.array([0]), np.array([1]), np.array([2])), (1.0, 1.0, 4.0)).ids(0, 10)
    )
    assert quotas.tolist() == [
        2,
        1,
        7,
    ]  # of 1.67, 1.67 and 6.67: the largest remainders first, then the first ones


@pytest.mark.parametrize("strata", [(), STRATA])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_windows_draw_the_same_images_as_often_from_few_shards_at_a_time(
    strata: tuple[np.ndarray, ...], window: int
) -> None:
    shard_of = np.repeat(np.arange(5), SIZES)
    seen = set()
    for epoch in range(12):
        drawn = Order(30, 2, strata, None, SIZES, window).ids(30 * epoch, 30 * epoch + 30)
        assert sorted(drawn) == sorted(Order(30, 2, strata).ids(30 * epoch, 30 * epoch + 30))
        open_at = np.zeros(30, int)
        for shard in set(shard_of[drawn]):
            places = np.flatnonzero(shard_of[drawn] == shard)
            open_at[places[0] : places[-1] + 1] += 1
        assert open_at.max() <= window
        seen.add(tuple(drawn.tolist()))
    assert len(seen) == 12


def test_a_window_is_shuffled_and_the_shards_are_dealt_anew_each_epoch() -> None:
    order = Order(
        400,
        1,
        sizes=np.full(8, 50),
        window=4,
    )
    for epoch in range(5):
        first = order.ids(400 * epoch, 400 * epoch + 200)
        assert (
            len(set((first // 50).tolist())) == 4
        )  # half of the epoch comes from half of the shards
        assert len(set((first[:20] // 50).tolist())) >= 3
    dealt = {
        frozenset((order.ids(400 * epoch, 400 * epoch + 200) // 50).tolist())
        for epoch in range(20)
    }
    assert len(dealt) > 10


WINDOWED: dict[str, Any] = {"sizes": SIZES, "window": 2}


@pytest.mark.parametrize("strata", [(), STRATA])
@pytest.mark.parametrize(
    "more", [{}, WINDOWED, {"weights": (1.0, 2.0, 3.0)}, {"weights": (1.0, 2.0, 3.0), **WINDOWED}]
)
def test_the_sequence_does_not_depend_on_how_it_is_cut(
    strata: tuple[np.ndarray, ...], more: dict[str, Any]
) -> None:
    order = Order(
        30,
        seed=1,
        strata=strata,
        **more,
    )
    whole = order.ids(7, 200)
    for cuts in ([7, 8, 200], [7, 30, 60, 200], [7, 29, 31, 31 + 64, 200]):
        assert (
            np.concatenate([order.ids(a, b) for a, b in pairwise(cuts)]).tolist() == whole.tolist()
        )


def test_the_first_values_of_windows_and_weights_never_change() -> None:
    # As above: the name of this definition is windows-v2.
    drawn = [
        21,
        19,
        20,
        16,
        15,
        24,
        23,
        18,
        27,
        14,
        26,
        25,
        22,
        17,
        13,
        0,
        10,
        2,
        1,
        7,
        12,
        8,
        3,
        5,
        11,
        9,
        6,
        4,
        29,
        28,
        28,
        26,
        25,
        24,
        27,
        29,
        22,
        23,
        21,
        0,
    ]
    assert Order(30, 4, sizes=SIZES, window=2).ids(0, 40).tolist() == drawn
    drawn = [2, 4, 4, 3, 3, 2, 1, 29, 29, 29, 29, 26, 25, 25, 26, 29, 29, 4, 17, 4]
    assert Order(30, 4, STRATA, None, SIZES, 2).ids(20, 40).tolist() == drawn
    drawn = [29, 4, 26, 11, 4, 14, 13, 7, 21, 17, 10, 29, 0, 14, 6, 3, 26, 3, 20, 17]
    assert Order(30, 4, STRATA, (1.0, 2.0, 0.5)).ids(20, 40).tolist() == drawn
    drawn = [424816742, 395093497, 318490932, 74627457]
    assert (
        Order(10**9, 1, sizes=np.full(10**5, 10**4), window=50).ids(10**9 - 2, 10**9 + 2).tolist()
        == drawn
    )


def test_seeds_and_epochs_differ() -> None:
    orders = {
        tuple(Order(50, seed).ids(50 * epoch, 50 * epoch + 50))
        for seed in range(10)
        for epoch in range(10)
    }
    assert len(orders) == 100


@pytest.mark.parametrize("window", [0, 50])
def test_a_billion_images_cost_no_memory(window: int) -> None:
    count, clock = 10**9, 10**9 - 300  # across an epoch's end
    order = Order(
        count,
        2,
        sizes=np.full(10**5, 10**4),
        window=window,
    )
    order.ids(0, 10)
    tracemalloc.start()
    drawn = order.ids(clock, clock + 1024)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (20_000_000 if window else 1_000_000)  # a few numbers a shard
    if window:
        assert [len(set((part // 10**4).tolist())) for part in (drawn[:300], drawn[300:])] == [
            50,
            50,
        ]
        return
    assert drawn.min() >= 0
    assert drawn.max() < count
    assert len(set(drawn[:300])) == 300
    assert len(set(drawn[300:])) == 724
    assert drawn.mean() == pytest.approx(count / 2, rel=0.1)


@pytest.mark.parametrize("size", [1, 2, 5, 64, 1000])
def test_a_permutation_is_undone_by_its_way_back(size: int) -> None:
    slots = np.arange(size)
    assert permute(permute(slots, size, 3, 4), size, 3, 4, back=True).tolist() == slots.tolist()


def test_balanced_windows_hold_no_epoch_in_memory() -> None:
    count = 2 * 10**6
    strata = (np.arange(0, count, 50), np.setdiff1d(np.arange(count), np.arange(0, count, 50)))
    order = Order(
        count,
        2,
        strata,
        sizes=np.full(200, 10**4),
        window=5,
    )
    order.ids(0, 1)
    tracemalloc.start()
    drawn = np.concatenate(
        [order.ids(clock, clock + 4096) for clock in (count - 2000, count + 2096)]
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * count  # what a list of the epoch takes
    assert [len(set((part // 10**4).tolist())) for part in (drawn[:2000], drawn[2000:])] == [5, 5]
    assert (drawn % 50 == 0).mean() == pytest.approx(0.5, abs=0.02)


def test_every_image_is_equally_likely_at_every_place() -> None:
    size = 6
    seeds = 1500
    counts = np.zeros((size, size))
    for seed in range(seeds):
        counts[np.arange(size), permute(np.arange(size), size, seed, 0)] += 1
    statistic = (
        (counts - seeds / size) ** 2 / (seeds / size)
    ).sum()  # chi-square, (size - 1)² degrees of freedom
    assert statistic < 25 + 5 * np.sqrt(2 * 25)


def test_every_permutation_of_four_is_equally_likely() -> None:
    seeds = 2400
    found: dict[tuple[int, ...], int] = {}
    for seed in range(seeds):
        order = tuple(permute(np.arange(4), 4, seed, 1).tolist())
        found[order] = found.get(order, 0) + 1
    assert len(found) == 24
    assert sum((n - seeds / 24) ** 2 / (seeds / 24) for n in found.values()) < 23 + 5 * np.sqrt(
        2 * 23
    )


def test_neighbouring_slots_land_anywhere() -> None:
    drawn = Order(100_000, seed=0).ids(0, 20_000)
    gaps = np.abs(np.diff(drawn)) / 100_000
    assert gaps.mean() == pytest.approx(1 / 3, abs=0.01)  # mean distance of two uniform draws
