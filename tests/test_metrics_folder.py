"""What every metric of a folder must be: any file that is added is tested here."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from facefactory import registry
from facefactory.metrics import Array, moments

FOLDER = "metrics.features"
FEATURES = registry.names(FOLDER)
IMAGES = registry.names("metrics.images")


def metric(name: str, folder: str = FOLDER) -> ModuleType:
    return importlib.import_module(f"facefactory.{folder}.{name}")


def scored(name: str, real: Array, fake: Array, held_out: Array | None = None) -> dict[str, float]:
    """Scores of features by a metric, whatever it takes; to some, features are logits."""
    module = metric(name)
    sets = [real, fake]
    if getattr(module, "THREE", False):
        sets = [real, real[::-1] + 0.01 if held_out is None else held_out, fake]
    return (
        module.score(*(moments(rows) for rows in sets))
        if module.STATISTICS == "moments"
        else module.score(*sets)
    )


def drawn(rows: int, columns: int = 6, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def test_there_are_metrics() -> None:
    assert {"frechet_distance", "kernel_distance", "mind", "copying_test"} <= set(FEATURES)
    assert {"psnr", "ssim"} <= set(IMAGES)


@pytest.mark.parametrize("name", FEATURES)
def test_a_metric_says_what_it_takes_which_way_is_better_its_paper_and_whether_it_is_symmetric(
    name: str,
) -> None:
    module = metric(name)
    assert module.STATISTICS in ("sample", "moments", "logits")
    assert module.SCORES
    assert set(module.SCORES.values()) <= {"lower", "higher"}
    text = " ".join(str(module.__doc__).split())
    assert any(f"{year}" in text for year in range(1980, 2030)), "a paper has a year"
    assert "ymmetric" in text or "Swapping" in text
    assert len(text) > 200
    optional = {"THREE", "DRAWS"} & set(vars(module))
    assert all(getattr(module, flag) is True for flag in optional)


def test_no_two_metrics_give_one_name() -> None:
    given = [score for name in FEATURES for score in metric(name).SCORES]
    assert len(given) == len(set(given))


@pytest.mark.parametrize("name", FEATURES)
def test_a_metric_gives_the_scores_that_it_names_as_finite_floats_and_leaves_its_input_alone(
    name: str,
) -> None:
    real = drawn(1001)
    fake = drawn(1002, seed=1) + 0.2
    before = real.copy(), fake.copy()
    scores = scored(name, real, fake)
    assert scores.keys() == metric(name).SCORES.keys()
    assert all(type(value) is float and np.isfinite(value) for value in scores.values())
    np.testing.assert_array_equal(before[0], real)
    np.testing.assert_array_equal(before[1], fake)
    assert scored(name, real, fake) == scores


@pytest.mark.parametrize("name", FEATURES)
def test_the_order_of_images_does_not_matter_or_the_metric_says_that_it_draws(name: str) -> None:
    real = drawn(1100)
    fake = drawn(1300, seed=1) * 1.3 + 0.2
    held_out = drawn(1000, seed=2)
    mixed = np.random.default_rng(3)
    scores = scored(name, real, fake, held_out)
    others = scored(
        name, mixed.permutation(real), mixed.permutation(fake), mixed.permutation(held_out)
    )
    draws = getattr(metric(name), "DRAWS", False)
    if draws:
        assert others != scores  # or it should not say so
    if name == "kernel_distance_subsets":
        del scores["kd_subsets_deviation"]  # of subsets that are nearly the whole set
    for key, value in scores.items():
        assert others[key] == pytest.approx(value, rel=0.2 if draws else 1e-9, abs=1e-12)


@pytest.mark.parametrize("name", FEATURES)
def test_a_symmetric_metric_is_symmetric_and_another_is_not(name: str) -> None:
    real = drawn(1200)
    fake = drawn(1200, seed=1) * [0.3, 2.0, 1.0, 1.0, 1.5, 1.0] + 0.3
    text = " ".join(str(metric(name).__doc__).split())
    forth = scored(name, real, fake)
    back = scored(name, fake, real)
    if "Swapping the sets swaps" in text:
        assert list(forth.values()) == list(back.values())[::-1]
    elif "ot symmetric" in text:
        assert forth != pytest.approx(back, rel=1e-3)
    else:
        rel = 0.05 if getattr(metric(name), "DRAWS", False) else 1e-9
        main = next(iter(forth))
        assert forth[main] == pytest.approx(back[main], rel=rel)


@pytest.mark.parametrize("name", FEATURES)
def test_sets_that_are_too_small_are_refused_with_how_many_are_needed(name: str) -> None:
    whole = drawn(1500)
    module = metric(name)
    sets: list[Any] = [whole] * (3 if getattr(module, "THREE", False) else 2)
    sees_fakes_only = "sees fakes only" in " ".join(str(module.__doc__).split())
    for place in range(len(sets)):
        if sees_fakes_only and place == 0:
            continue
        few = [whole[:0] if number == place else rows for number, rows in enumerate(sets)]
        with pytest.raises(ValueError, match=r"needs (at least )?\d+ .*images; there are 0"):
            if module.STATISTICS == "moments":
                few = [
                    moments(rows) if len(rows) else type(moments(whole))(0, rows, rows)
                    for rows in few
                ]
            module.score(*few)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", FEATURES)
def test_a_value_that_is_no_number_is_refused_and_never_becomes_a_score(
    name: str, bad: float
) -> None:
    fake = drawn(1100, seed=1)
    fake[1050, 3] = bad
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="NaN or infinite"):
        scored(name, drawn(1100), fake, drawn(1100, seed=2))


@pytest.mark.parametrize(
    "name", [name for name in FEATURES if metric(name).STATISTICS == "sample"]
)
def test_as_many_images_as_a_metric_says_it_needs_are_enough(name: str) -> None:
    module = metric(name)
    sizes = [1500] * (3 if getattr(module, "THREE", False) else 2)
    for place in range(len(sizes)):
        least = sizes.copy()
        least[place] = 0
        try:
            module.score(*(drawn(size, 2, seed) for seed, size in enumerate(least)))
        except ValueError as error:
            least[place] = int(str(error).split("at least ")[1].split()[0])
        assert (
            module.score(*(drawn(size, 2, seed) for seed, size in enumerate(least))).keys()
            == module.SCORES.keys()
        )
        if least[place]:
            least[place] -= 1
            with pytest.raises(ValueError, match="needs"):
                module.score(*(drawn(size, 2, seed) for seed, size in enumerate(least)))


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_metric_scores_two_stacks_and_refuses_others(name: str) -> None:
    module = metric(name, "metrics.images")
    rng = np.random.default_rng(0)
    images = rng.integers(
        0,
        256,
        (70, 16, 12, 3),
        np.uint8,
    )
    noisy = (images + rng.integers(-9, 10, images.shape)).clip(0, 255).astype(np.uint8)
    scores = module.score(images, noisy)
    assert scores.keys() == module.SCORES.keys()
    assert all(type(value) is float for value in scores.values())
    order = rng.permutation(len(images))
    assert module.score(images[order], noisy[order]) == pytest.approx(scores)
    assert module.score(noisy, images) == pytest.approx(scores)
    assert list(module.score(images, images).values()) > list(scores.values())
    for wrong in (noisy[:5], noisy[:, :8], noisy.astype(float), noisy[0]):
        with pytest.raises(ValueError, match="must be"):
            module.score(images, wrong)
    with pytest.raises(ValueError, match="N > 0"):
        module.score(images[:0], images[:0])
