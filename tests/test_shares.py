"""Who a model draws: the judge's counts with its errors taken out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facefactory import UserError
from facefactory.data.sets.index import Index
from facefactory.facts import Label
from facefactory.interpret import Interpret, combinations_of, shares


def test_two_classes_are_corrected_as_rogan_and_gladen_do() -> None:
    sensitivity, specificity = 0.9, 0.85
    confusion = np.array([[specificity, 1 - specificity], [1 - sensitivity, sensitivity]])
    for true in (0.05, 0.3, 0.9):
        apparent = true * sensitivity + (1 - true) * (1 - specificity)
        formula = (apparent + specificity - 1) / (sensitivity + specificity - 1)
        found = shares.corrected(np.array([1 - apparent, apparent]), [confusion])
        assert found[1] == pytest.approx(formula) == pytest.approx(true)
    none = shares.corrected(np.array([0.95, 0.05]), [confusion])  # fewer than it errs
    assert none.tolist() == [1, 0]


def test_combinations_are_corrected_axis_by_axis() -> None:
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.ones(12)).reshape(3, 2, 2)
    confusions = [np.eye(size) * 0.7 + 0.3 / size for size in true.shape]
    seen = np.einsum("abc,ax,by,cz->xyz", true, *confusions)
    np.testing.assert_allclose(
        shares.corrected(seen, confusions),
        true,
        atol=1e-12,
    )
    many = shares.corrected(
        np.stack([seen, true]), [np.stack([one, np.eye(len(one))]) for one in confusions]
    )
    np.testing.assert_allclose(
        many,
        [true, true],
        atol=1e-12,
    )


def test_a_perfect_judge_is_not_corrected() -> None:
    codes = np.array([0, 2, 1, 2, -1, 2])
    seen = shares.table([codes], [3])
    assert seen.tolist() == [0.2, 0.2, 0.6]
    assert shares.corrected(seen, [np.eye(3)]).tolist() == pytest.approx(seen.tolist())
    both = shares.table([codes, np.array([1, 0, 0, 0, 0, -1])], [3, 2])
    assert both.tolist() == [[0, 0.25], [0.25, 0], [0.5, 0]]


def simulated(
    rng: np.random.Generator, true: Any, confusion: Any, held_out: int, drawn: int
) -> Any:
    """Verdicts about drawn faces, and what the judge made of held-out ones, a person each."""
    classes = len(true)
    ends = np.cumsum(confusion, 1)

    def judge(codes: Any) -> Any:
        return (rng.random(len(codes))[:, None] > ends[codes]).sum(1).clip(0, classes - 1)

    known = rng.integers(0, classes, held_out)
    seen = judge(known)
    judged = judge(rng.choice(classes, drawn, p=true))
    return judged, shares.confused(known, seen, np.arange(held_out), classes)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    true = np.array([0.6, 0.3, 0.1])
    confusion = np.array([[0.9, 0.05, 0.05], [0.15, 0.8, 0.05], [0.1, 0.1, 0.8]])
    inside = []
    widths = []
    for _ in range(80):
        verdicts, confused = simulated(rng, true, confusion, 200, 300)
        value, low, high = shares.estimated([verdicts], [confused])
        assert value.sum() == pytest.approx(1)
        inside.append((low <= true) & (true <= high))
        widths.append(high - low)
    assert 0.88 <= np.mean(inside) <= 0.99
    assert np.mean(widths) < 0.25


def test_a_judge_that_confuses_classes_or_saw_too_few_is_not_turned_round() -> None:
    rng = np.random.default_rng(0)
    _, guessing = simulated(
        rng,
        [0.5, 0.5],
        np.full((2, 2), 0.5),
        300,
        10,
    )
    assert "confuses" in guessing.absent()
    _, good = simulated(
        rng,
        [0.5, 0.5],
        np.eye(2),
        300,
        10,
    )
    assert good.absent() == ""
    few = shares.confused(
        np.array([0] * 20 + [1] * 5), np.array([0] * 20 + [1] * 5), np.arange(25), 2
    )
    assert "5 held-out people" in few.absent()


class Draws:
    """Three of four faces are bright."""

    z_dim = 2
    conditions = ()

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        bright = (z[:, 0] > -0.6745).float() * 2 - 1
        return bright[:, None, None, None].repeat(1, 1, 16, 16)


class Judge:
    def logits(self, images: Tensor) -> dict[str, Tensor]:
        bright = images.mean((1, 2, 3))
        return {name: torch.stack([-bright, bright], 1) for name in ("Glasses", "Beard")}


def test_shares_stand_beside_those_of_the_training_set(index: Index) -> None:
    found = shares.of(
        Draws(), Judge(), index, Interpret(samples=400, joint=["Glasses", "Beard"]), 0
    )
    assert [one.labels for one in found] == [["Glasses"], ["Beard"], ["Glasses", "Beard"]]
    rows = {row.classes["Glasses"]: row for row in found[0].rows}
    assert rows["1"].judged == pytest.approx(0.75, abs=0.06)
    assert rows["1"].trained == pytest.approx(0.4)
    assert rows["1"].drawn is None
    assert "held-out people" in found[0].absent
    assert sum(row.judged for row in found[2].rows) == pytest.approx(1)
    assert len(found[2].rows) == 4
    assert shares.of(Judge(), Judge(), index, Interpret(), 0) == []


def test_combinations_of_what_has_no_classes_are_refused(index: Index) -> None:
    schema = index.content.labels
    with pytest.raises(UserError, match=r"no label with classes 'glasses'.*'Glasses'"):
        combinations_of(schema, Interpret(joint=["glasses", "Beard"]))
    many = {str(number): Label("categorical", tuple("abcdefgh")) for number in range(3)}
    with pytest.raises(UserError, match=r"512 combinations of classes; at most 200"):
        combinations_of(many, Interpret(joint=list(many)))
    with pytest.raises(UserError, match="no label with classes 'Person'"):
        combinations_of(schema, Interpret(joint=["Person"]))
