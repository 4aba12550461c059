"""Nearest neighbours and balls in blocks against the table of all distances."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from facefactory import registry
from facefactory.metrics import Array
from facefactory.metrics.features import _kernel, _neighbours
from facefactory.metrics.features._neighbours import inside, nearest


def drawn(rows: int, columns: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def far_from_0() -> tuple[Array, Array]:
    return drawn(60, 40) + 1e4, drawn(90, 40, 1) + 1e4


def with_an_outlier() -> tuple[Array, Array]:
    queries = drawn(60, 3)
    support = drawn(90, 3, 1)
    support[7] = 1e7
    return queries, support


def whole_numbers() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 3, (60, 2)).astype(float), rng.integers(0, 3, (90, 2)).astype(float)


def one_image() -> tuple[Array, Array]:
    return np.full((60, 30), 0.1), np.full((90, 30), 0.1)


def shells() -> tuple[Array, Array]:
    """All of the support is equally far but for what float32 products cannot tell."""
    rows = drawn(90, 300, 1)
    rows *= (1 + 1e-7 * drawn(90, 1, 2)) / np.linalg.norm(rows, axis=1, keepdims=True)
    return 1e-9 * drawn(60, 300), rows


SETS = {
    "usual": lambda: (drawn(60, 5), drawn(90, 5, 1)),
    "many columns": lambda: (drawn(60, 1280), drawn(90, 1280, 1)),
    "tiny": lambda: (1e-30 * drawn(60, 5), 1e-30 * drawn(90, 5, 1)),
    **{
        function.__name__: function
        for function in (far_from_0, with_an_outlier, whole_numbers, one_image, shells)
    },
}


@pytest.mark.parametrize("size", [1, 4 * 90 * 7, 2**26])
@pytest.mark.parametrize("case", SETS)
def test_neighbours_and_balls_are_those_of_the_table_of_all_distances(
    case: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_neighbours, "BLOCK_BYTES", size)
    queries, support = SETS[case]()
    table = cdist(queries, support, "sqeuclidean")
    found = nearest(queries, support, 4)
    scale = table.max() or 1.0
    np.testing.assert_allclose(
        found.squared, np.sort(table, axis=1)[:, :4], rtol=1e-9, atol=1e-12 * scale
    )
    np.testing.assert_allclose(
        np.take_along_axis(table, found.rows, 1), found.squared, rtol=1e-9, atol=1e-12 * scale
    )
    assert all(len(set(rows)) == 4 for rows in found.rows.tolist())

    radii = np.sort(cdist(support, support, "sqeuclidean"), axis=1)[:, 3]
    balls = cdist(queries, support, "sqeuclidean") <= radii * (1 + 1e-12)
    (by_query, by_centre), (few, _) = inside(
        queries,
        support,
        radii,
        radii / 2,
    )
    assert by_query.tolist() == balls.sum(1).tolist()
    assert by_centre.tolist() == balls.sum(0).tolist()
    assert (few <= by_query).all()


@pytest.mark.parametrize("case", SETS)
def test_no_row_is_its_own_neighbour_but_its_double_is(case: str) -> None:
    _, rows = SETS[case]()
    rows = np.concatenate([rows, rows[:1]])
    found = nearest(rows, rows, 3, itself=False)
    assert not (found.rows == np.arange(len(rows))[:, None]).any()
    assert found.squared[0, 0] == found.squared[-1, 0] == 0
    table = cdist(rows, rows, "sqeuclidean")
    np.fill_diagonal(table, np.inf)
    np.testing.assert_allclose(
        found.squared,
        np.sort(table, axis=1)[:, :3],
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("case", ["whole_numbers", "one_image"])
def test_of_equally_near_rows_those_that_come_first_are_named(case: str) -> None:
    queries, support = SETS[case]()
    table = cdist(queries, support, "sqeuclidean")
    wanted = np.argsort(table, axis=1, kind="stable")[:, :4]
    assert nearest(queries, support, 4).rows.tolist() == wanted.tolist()


def test_copies_are_at_distance_0_and_in_the_ball_whose_edge_they_are() -> None:
    reals = drawn(200, 64) * 3 + 7
    found = nearest(reals[50:60], reals, 1)
    assert found.squared.max() == 0
    assert found.rows[:, 0].tolist() == list(range(50, 60))
    neighbours = nearest(reals, reals, 5, itself=False)
    ((_, held),) = inside(reals, reals, neighbours.squared[:, -1])
    assert set(held.tolist()) == {6}  # itself, and five of which one is on the edge


def test_the_bound_on_float32_distances_holds_and_is_not_idle() -> None:
    rows = drawn(300, 2048) + 0.5
    pairs = _neighbours._Pairs(rows, rows)
    rough, _ = pairs.roughly(slice(0, 300))
    moved = pairs.moved(rows)
    squares = (moved**2).sum(1)
    worst = (
        np.abs(rough - cdist(moved, moved, "sqeuclidean")) / (squares[:, None] + squares)
    ).max()
    assert pairs.single / 10_000 < worst < pairs.single


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number_is_refused_on_either_side(bad: float) -> None:
    rows = drawn(1200, 2)
    rows[1100, 1] = bad
    for pair in ((rows, drawn(9, 2)), (drawn(9, 2), rows)):
        with pytest.raises(ValueError, match="NaN or infinite"):
            nearest(*pair, 1)


OF_FEATURES = [
    name
    for name in registry.names("metrics.features")
    if registry.module("metrics.features", name).STATISTICS == "sample"
]


@pytest.mark.parametrize("name", OF_FEATURES)
def test_no_table_of_all_pairs_is_ever_in_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_neighbours, "BLOCK_BYTES", 2**20)
    monkeypatch.setattr(_kernel, "ROWS", 256)
    metric = registry.module("metrics.features", name)
    sets = [drawn(5000, 4, seed) for seed in range(3 if getattr(metric, "THREE", False) else 2)]
    tracemalloc.start()
    metric.score(*sets)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5000 * 5000 * 4 / 5  # of a float32 table


FULL_SIZE = """
import resource
import numpy as np
from facefactory.metrics.features import _kernel, _neighbours

rng = np.random.default_rng(0)
real, fake = (rng.random((50_000, 2048), np.float32).astype(np.float64) for _ in range(2))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
blocks = _neighbours._Pairs.blocks
_neighbours._Pairs.blocks = lambda pairs: list(blocks(pairs))[:2]
parts = _kernel._parts
_kernel._parts = lambda count: list(parts(count))[:2]
found = _neighbours.nearest(fake, real, 5)
_neighbours.inside(fake, real, np.full(50_000, np.median(found.squared[:100, 4])))
_kernel.within(real, np.ones((50_000, 1)))
_kernel.between(real, fake, np.ones((50_000, 1)), np.ones((50_000, 1)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_50_000_images_of_2048_features_need_little_more_than_their_features() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL_SIZE], capture_output=True, text=True, timeout=800, check=True
    )
    table = 50_000 * 50_000 * 4
    features = 50_000 * 2048 * 8
    assert int(ran.stdout) * 1024 < features < table / 10  # blocks are alike: two show the most
