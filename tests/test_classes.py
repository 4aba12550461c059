"""Scores of single classes, and whether what was drawn is what was asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facefactory import registry
from facefactory.data.sets.index import Index
from facefactory.evaluation import Evaluation, classes, extractors
from facefactory.evaluation.extractors import Judge
from facefactory.evaluation.subjects import Context, generator
from facefactory.facts import Label
from facefactory.results import Goal, Protocol

SCHEMA = {"Glasses": Label("binary", ("0", "1"))}
PROTOCOL = Protocol(
    *("lite0", "57934424", "none", "uint8", "abc", "train", "square", 0, 0, 0, "", 1.0)
)


def blob(count: int, at: float, seed: int) -> Any:
    return np.random.default_rng(seed).normal(at, 1, (count, 6))


# -- one class after the other ---------------------------------------------------------------------


def test_the_class_that_is_drawn_badly_has_the_worse_scores() -> None:
    codes = np.repeat([0, 1], 200)
    real = np.concatenate([blob(200, 0, 0), blob(200, 4, 1)])
    fake = np.concatenate([blob(200, 0, 2), blob(200, 0, 3)])  # glasses are never drawn
    rows = classes.scores(
        PROTOCOL,
        SCHEMA,
        (real, {"Glasses": codes}, None),
        (fake, {"Glasses": codes}),
        {"Glasses": "asked"},
    )
    assert [(one.name, one.by, one.reals, one.fakes) for one in rows] == [
        ("0", "asked", 200, 200),
        ("1", "asked", 200, 200),
    ]
    values = [{one.kind: one for one in row.scores} for row in rows]
    assert values[0].keys() == {"kd", "fd"}
    for kind in ("kd", "fd"):
        assert values[1][kind].value > 10 * abs(values[0][kind].value)
    kd = values[0]["kd"]
    assert kd.low is not None
    assert kd.high is not None
    assert kd.low < 0 < kd.high
    assert values[0]["kd"].protocol != PROTOCOL.id()  # other counts are another protocol


def test_a_class_of_few_images_is_named_and_not_scored() -> None:
    codes = np.array([0] * 100 + [1] * 19 + [-1] * 5)
    features = blob(len(codes), 0, 0)
    given = {"Glasses": codes}
    rows = classes.scores(
        PROTOCOL, SCHEMA, (features, given, None), (features, given), {"Glasses": "judge"}
    )
    assert rows[0].scores
    assert not rows[0].verdict
    assert rows[0].reals == 100
    assert not rows[1].scores
    assert "too few images" in rows[1].verdict
    assert rows[1].fakes == 19


def test_labels_that_were_asked_for_come_first_and_people_are_no_classes() -> None:
    schema = {
        "Person": Label("identity", tuple(str(one) for one in range(40))),
        "Age": Label("real"),
        "Hair": Label("categorical", tuple(str(one) for one in range(20))),
        **SCHEMA,
        "Beard": SCHEMA["Glasses"],
    }
    by = classes.chosen(schema, ["Glasses"], ["Person", "Age", "Hair", "Glasses", "Beard"])
    assert by == {"Glasses": "asked", "Hair": "judge", "Beard": "judge"}
    assert list(classes.chosen(schema, ["Person"], ["Beard"] * 30)) == ["Beard"]


def test_the_metrics_that_are_asked_for_each_class_say_so() -> None:
    asked = {
        name
        for name in registry.names("metrics.features")
        if getattr(registry.module("metrics.features", name), "BY_CLASS", False)
    }
    assert asked == {"frechet_distance", "kernel_distance"}


# -- a model that listens, and one that does not ---------------------------------------------------


class Lamp:
    """Bright where glasses are asked for, dark otherwise; `deaf`: as z likes."""

    z_dim = 1
    conditions = ("Glasses",)

    def __init__(self, deaf: bool) -> None:
        self.deaf = deaf

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        level = torch.where(z > 0, 0.5, -0.5) if self.deaf else 0.5 * c
        noise = 0.2 * torch.sin(40 * z * torch.arange(256))
        return (level + noise).view(-1, 1, 16, 16)


class Meter:
    """A judge that takes bright images for faces with glasses."""

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        mean = images.flatten(1).mean(1)
        return {"Glasses": torch.stack([-mean, mean], 1)}


@pytest.fixture(autouse=True)
def judged_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractors, "present", lambda: ["judge"])


def scored(model: Any, index: Index, folder: Path) -> dict[str, Any]:
    judge = Judge(Meter(), hashlib.sha256(b"meter").hexdigest())
    options = Evaluation(fakes=120)
    goal = Goal("kd_judge", "lower")
    context = Context(
        index,
        options,
        3,
        goal,
        torch.device("cpu"),
        judge,
        "0.5",
    )
    return generator.full(model, context, folder)


def test_the_judge_says_whether_a_model_draws_what_is_asked(index: Index, tmp_path: Path) -> None:
    listens = scored(Lamp(deaf=False), index, tmp_path)
    assert listens["agreement"]["Glasses"]["auroc"] == 1
    assert listens["agreement"]["Glasses"]["balanced_accuracy"] == 1
    asked = {row["name"]: row["fakes"] for row in listens["classes"] if row["by"] == "asked"}
    assert sum(asked.values()) == 120
    assert asked["0"] > asked["1"]
    deaf = scored(Lamp(deaf=True), index, tmp_path)["agreement"]["Glasses"]
    low, high = deaf["auroc_interval"]
    assert low < 0.5 < high
    assert high < 0.75
