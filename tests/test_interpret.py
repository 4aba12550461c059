"""Effects of latent dimensions on labels: planted ones are found, noise is not, people count as one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from facefactory import UserError
from facefactory.data.sets import loader
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.interpret import Context, Interpret, Space, claims
from facefactory.interpret.spaces import mu
from facefactory.metrics import Array

PEOPLE = np.repeat(np.arange(30), 6)


def codes_of(codes: Any, labels: Any, groups: Any = PEOPLE) -> Space:
    found = np.asarray(codes, np.float64)
    columns = found.shape[1]
    known = np.where(np.asarray(labels) < 0, np.nan, labels)
    names = map(str, range(known.shape[1]))
    start = torch.zeros(columns)
    return Space(
        found,
        dict(zip(names, known.T, strict=True)),
        np.asarray(groups),
        np.ones(columns),
        start,
        None,
        "made up",
        lambda rows: torch.zeros(len(rows), 1, 1, 1, dtype=torch.uint8),
        lambda codes: codes,
    )


def measured(space: Space) -> tuple[Array, Array, Array]:
    return claims.effects(space, list(space.labels))


# -- effects ---------------------------------------------------------------------------------------------------------


def test_a_planted_dimension_is_found_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (180, 2)).astype(float)
    codes = rng.normal(size=(180, 5))
    codes[:, 3] += 1.5 * labels[:, 1]
    delta, bounds, q = measured(codes_of(codes, labels))
    assert delta.shape == q.shape == (5, 2)
    assert bounds.shape == (2, 5, 2)
    assert q[3, 1] < 0.05
    assert 0 < bounds[0, 3, 1] < delta[3, 1] < bounds[1, 3, 1]
    others = np.ones((5, 2), bool)
    others[3, 1] = False
    assert (q[others] > 0.05).all()
    assert ((bounds[0] < 0) & (bounds[1] > 0))[
        others
    ].sum() >= 8  # of 9: intervals are not corrected for testing


def test_a_perfect_code_has_effect_1_its_mirror_minus_1_and_a_constant_none() -> None:
    labels = (np.arange(180) % 2).astype(float)
    delta, bounds, q = measured(
        codes_of(np.stack([labels, -labels, np.full(180, 0.3)], 1), labels[:, None])
    )
    assert delta[:, 0].tolist() == [1, -1, 0]
    assert bounds[:, :, 0].T.tolist() == [[1, 1], [-1, -1], [0, 0]]
    assert q[0, 0] == q[1, 0] < 1e-6
    assert q[2, 0] == 1


def test_q_values_are_the_larger_the_more_is_tested() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (180, 1)).astype(float)
    planted = rng.normal(size=(180, 1)) + 0.6 * labels
    alone = measured(codes_of(planted, labels))[2][0, 0]
    among_noise = measured(codes_of(np.hstack([planted, rng.normal(size=(180, 40))]), labels))[2][
        0, 0
    ]
    assert alone < among_noise


def test_intervals_are_wider_by_person_than_by_image_when_faces_of_a_person_are_alike() -> None:
    rng = np.random.default_rng(0)
    labels = (PEOPLE % 2).astype(float)[:, None]
    codes = rng.normal(size=(30, 1))[PEOPLE] + 0.2 * rng.normal(size=(180, 1))
    widths = []
    chances = []
    for groups in (PEOPLE, np.arange(180)):
        _, bounds, q = measured(codes_of(codes, labels, groups))
        widths.append(np.ptp(bounds[:, 0, 0]))
        chances.append(q[0, 0])
    assert widths[0] > 1.5 * widths[1]
    assert chances[0] > chances[1]


def test_a_missing_label_leaves_out_the_image_for_that_label_only() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (180, 2)).astype(float)
    codes = np.stack([labels[:, 0], labels[:, 1]], 1)
    labels[:60, 0] = -1
    codes[:60, 0] = rng.normal(size=60) * 100  # would spoil the effect
    delta, _, _ = measured(codes_of(codes, labels))
    assert delta[0, 0] == delta[1, 1] == 1


def test_without_labels_there_are_no_effects() -> None:
    delta, bounds, q = measured(codes_of(np.zeros((180, 3)), np.zeros((180, 0))))
    assert delta.shape == q.shape == (3, 0)
    assert bounds.shape == (2, 3, 0)


def test_a_label_that_no_face_has_does_not_spoil_the_others() -> None:
    labels = np.stack([np.arange(180) % 2, np.zeros(180)], 1)
    delta, _, q = measured(codes_of(labels[:, :1], labels))
    assert delta[0].tolist() == [1, 0]
    assert q[0, 0] < 0.05
    assert q[0, 1] == 1


# -- interpret -------------------------------------------------------------------------------------------------------


class FakeVAE:
    """Dimension 0 says who wears glasses; 1 is noise with a KL of 0.5 nats; 2 is the prior itself; 3 just below 0.05 nats."""

    z_dim = 4

    def __init__(self, index: Index) -> None:
        everyone = Shards(index, list(index.content.splits))
        glasses = everyone.labels(["Glasses"])["Glasses"].float()
        noise = torch.randn(len(everyone), generator=torch.Generator().manual_seed(2))
        noise = (noise - noise.mean()) / noise.std(
            correction=0
        )  # mean of squares 1: KL 0.5 when the posterior's variance is 1
        self.mu = torch.stack([2 * glasses - 1, noise, 0 * glasses, 0.3 * noise], 1)

    def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        assert len(images) == len(self.mu)  # all splits, in order
        return self.mu, torch.zeros_like(self.mu)

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """The first code is the brightness, the second that of the lower half."""
        images = (z[:, :1, None, None] / 4).repeat(1, 1, 16, 16)
        images[:, :, 8:] += z[:, 1, None, None, None] / 8
        return images.clamp(-1, 1)

    decode = sample


class FakeGAN:
    """Code 0 is the brightness of the face, the others nothing."""

    z_dim = 3

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        return (z[:, :1, None, None] / 4).clamp(-1, 1).repeat(1, 1, 16, 16)


class BrightnessJudge:
    """Sees glasses in bright faces."""

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        bright = images.mean((1, 2, 3))
        return {"Glasses": torch.stack([-bright, bright], 1), "Beard": torch.zeros(len(images), 2)}


def words(row: dict[str, Any]) -> str:
    """A dimension's verdict with its labels."""
    return " ".join([row["verdict"], *row["labels"]])


def interpret(model: Any, index: Index, folder: Path, **options: Any) -> dict[str, Any]:
    asked = Interpret(**{"samples": 300, **options})
    found = claims.interpret(model, BrightnessJudge(), index, asked, 0, folder)
    assert json.loads(json.dumps(found, allow_nan=False))["labels"] == found["labels"]
    return found


def test_a_vae_gets_a_status_per_dimension(index: Index, tmp_path: Path) -> None:
    found = interpret(FakeVAE(index), index, tmp_path)
    assert [words(row) for row in found["dimensions"]] == [
        "goes with Glasses",
        "unnamed",
        "inactive",
        "inactive",
    ]
    assert [row["kl_nats"] for row in found["dimensions"]] == pytest.approx(
        [0.5, 0.5, 0, 0.045], abs=1e-5
    )
    planted = found["dimensions"][0]["effects"]["Glasses"]
    assert planted["value"] == planted["low"] == planted["high"] == 1
    assert planted["nats"] > 0.3
    assert planted["q"] < 0.05


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [0, 1, 2, 3]),
        ({"order": "kl"}, [1, 0, 3, 2]),
        ({"inactive": False}, [0, 1]),
        ({"order": "kl", "inactive": False}, [1, 0]),
    ],
    ids=str,
)
def test_reports_list_dimensions_by_kl_or_number_with_or_without_those_that_carry_nothing(
    index: Index, tmp_path: Path, options: dict[str, Any], wanted: list[int]
) -> None:
    model = FakeVAE(index)
    model.mu[:, 1] *= 2  # now the noise carries most nats
    found = interpret(model, index, tmp_path, **options)
    assert found["listed"] == wanted
    assert len(found["dimensions"]) == 4  # the results keep all
    assert found["traversed"] == [number for number in (1, 0, 3, 2) if number in wanted]


def test_codes_without_a_kl_are_listed_by_number_and_none_of_them_is_left_out(
    index: Index, tmp_path: Path
) -> None:
    found = interpret(FakeGAN(), index, tmp_path, order="kl", inactive=False)
    assert found["listed"] == [0, 1, 2]


def test_whole_codes_are_scored_against_the_factors_that_are_asked_for(
    index: Index, tmp_path: Path
) -> None:
    found = interpret(FakeVAE(index), index, tmp_path, factors=["Glasses"])["codes"]
    assert (found["faces"], found["factors"]) == (60, ["Glasses"])
    assert found["scores"]["mig"] > 0.4  # 60 faces in 20 bins: noise tells something too
    assert found["scores"]["tad_nashae_captured"] == 1
    assert "2 factors" in found["absent"]["dci"]
    whole = interpret(FakeVAE(index), index, tmp_path)["codes"]
    assert whole["factors"] == ["Glasses", "Beard"]  # people are no factor
    with pytest.raises(UserError, match=r"interpret.factors: no label 'glasses'.*'Glasses'"):
        interpret(FakeVAE(index), index, tmp_path, factors=["glasses"])


def test_codes_do_not_depend_on_the_chunks(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pixels:
        def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            assert len(images) <= chunk
            return images.flatten(1)[:, :3], images.flatten(1)[:, 3:6]

    found = []
    for chunk in (60, 7):
        monkeypatch.setattr(loader, "CHUNK", chunk)
        found.append(
            mu.of(
                Pixels(), Context(index, None, Interpret(), 0, ["Glasses"], ["Glasses", "Person"])
            )
        )
    np.testing.assert_array_equal(found[0].codes, found[1].codes)
    assert found[0].activity == found[1].activity
    assert len(found[0].codes) == len(found[0].labels["Person"]) == 60


def test_a_model_that_draws_nothing_is_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"draws no faces .* run="):
        claims.interpret(BrightnessJudge(), BrightnessJudge(), index, Interpret(), 0, tmp_path)


def test_labels_of_too_few_people_are_listed_with_the_reason(index: Index, tmp_path: Path) -> None:
    found = interpret(FakeVAE(index), index, tmp_path)
    assert found["labels"] == ["Glasses"]
    assert found["dimensions"][0]["effects"].keys() == {"Glasses"}
    assert found["not_scored"].keys() == {"Beard"}
    assert "6 people" in found["not_scored"]["Beard"]


def test_an_association_below_the_min_effect_is_not_named(index: Index, tmp_path: Path) -> None:
    model = FakeVAE(index)
    model.mu[:, 0] += 3 * torch.randn(len(model.mu), generator=torch.Generator().manual_seed(1))
    first = interpret(model, index, tmp_path, min_effect=0.0)["dimensions"][0]
    effect = 2 * first["effects"]["Glasses"]["value"] - 1
    assert 0.2 < effect < 0.9
    statuses = [
        words(interpret(model, index, tmp_path, min_effect=least)["dimensions"][0])
        for least in (effect - 0.01, effect + 0.01)
    ]
    assert statuses == ["goes with Glasses", "unnamed"]


def test_a_gan_is_named_by_what_the_judge_sees(index: Index, tmp_path: Path) -> None:
    found = interpret(FakeGAN(), index, tmp_path)
    first, *others = found["dimensions"]
    assert words(first) == "goes with Glasses"
    assert first["effects"]["Glasses"]["value"] > 0.99
    assert [words(row) for row in others] == ["unnamed"] * 2
    assert all(row["kl_nats"] is None for row in found["dimensions"])
    assert found["traversed"][0] == 0


def test_traversals_walk_from_minus_3_to_3_along_the_strongest_dimensions(
    index: Index, tmp_path: Path
) -> None:
    model = FakeVAE(index)
    model.mu[:, 1] *= 2  # now the noise carries most nats
    found = interpret(model, index, tmp_path, traversed=2)
    assert found["traversed"] == [1, 0]
    (sheet,) = found["sheets"]
    assert (sheet["file"], sheet["blocks"]) == ("traversals.png", [1, 0])
    assert sheet["columns"][::4] == ["-3 deviations", "+0 deviations", "+3 deviations"]
    picture = np.array(Image.open(tmp_path / "traversals.png"))
    assert picture.shape == (2 * 16, 9 * 16)
    brightness = np.round((np.linspace(-3, 3, 9) / 4 + 1) * 127.5)
    np.testing.assert_allclose(
        picture[16, ::16], brightness, atol=1
    )  # row 2: dimension 0, from the prior's mean
    assert (picture[0] == 128).all()
    assert len(set(picture[15, ::16])) == 9


def test_a_gans_walk_starts_from_a_face_not_from_the_mean(index: Index, tmp_path: Path) -> None:
    found = interpret(FakeGAN(), index, tmp_path, traversed=5)
    assert sorted(found["traversed"]) == [0, 1, 2]  # no more than there are
    picture = np.array(Image.open(tmp_path / "traversals.png"))
    assert picture.shape == (3 * 16, 9 * 16)
    assert len(set(picture[0, ::16])) == 9
    still = picture[16:]  # what the face does not show does not move
    assert len(np.unique(still)) == 1
    assert still[0, 0] not in (127, 128)


def test_a_set_without_scorable_labels_still_has_walks_and_activity(
    index: Index, tmp_path: Path
) -> None:
    labels = {name: index.content.labels[name] for name in ("Beard", "Person")}
    bare = Index(index.folder, replace(index.content, labels=labels))
    found = interpret(FakeVAE(index), bare, tmp_path)
    assert found["labels"] == []
    assert found["not_scored"].keys() == {"Beard"}
    assert [words(row) for row in found["dimensions"]] == [
        "unnamed",
        "unnamed",
        "inactive",
        "inactive",
    ]
    found = interpret(FakeGAN(), bare, tmp_path)
    assert [words(row) for row in found["dimensions"]] == ["unnamed"] * 3
    assert (tmp_path / "traversals.png").is_file()


def test_a_collapsed_generator_has_no_effects(index: Index, tmp_path: Path) -> None:
    model = FakeGAN()
    model.sample = lambda z, c: torch.zeros(len(z), 1, 16, 16)  # type: ignore[method-assign]
    found = interpret(model, index, tmp_path)
    assert [words(row) for row in found["dimensions"]] == ["unnamed"] * 3
