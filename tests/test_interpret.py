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
from torch import Tensor, nn

from facefactory import UserError, rundir, stages
from facefactory.data.sets import loader, pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.facts import Label
from facefactory.interpret import Context, Interpret, Space, Unsuited, claims, effects
from facefactory.interpret.effects import Table
from facefactory.interpret.spaces import mu
from facefactory.interpret.witnesses import Witnesses
from facefactory.run import Paths, Run
from facefactory.rundir import RunDir
from facefactory.stages import Plan

PEOPLE = np.repeat(np.arange(30), 6)


BINARY = Label("binary", ("0", "1"))


def table_of(codes: Any, labels: dict[str, Any], groups: Any = PEOPLE, **options: Any) -> Table:
    """The effects on labels of two classes."""
    known = {name: np.asarray(values, np.float64) for name, values in labels.items()}
    schema = dict.fromkeys(labels, BINARY)
    return effects.table(
        np.asarray(codes, np.float64), known, schema, np.asarray(groups), **options
    )


def two(labels: Any) -> dict[str, Any]:
    """Columns, called by their numbers."""
    return {str(number): column for number, column in enumerate(np.asarray(labels).T)}


# -- effects ---------------------------------------------------------------------------------------------------------


def test_a_planted_dimension_is_found_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (180, 2)).astype(float)
    codes = rng.normal(size=(180, 5))
    codes[:, 3] += 1.5 * labels[:, 1]
    rows = table_of(codes, two(labels)).rows
    planted = rows[3][1]
    assert planted.q < 0.05
    assert 0.5 < planted.low < planted.value < planted.high
    others = [effect for row in rows for effect in row if effect is not planted]
    assert all(effect.q > 0.05 for effect in others)
    around = [effect.low < 0.5 < effect.high for effect in others]
    assert sum(around) >= 8  # of 9: intervals are not corrected for testing


def test_a_perfect_code_has_1_its_mirror_0_and_a_constant_a_half() -> None:
    labels = np.arange(180) % 2
    codes = np.stack([labels, -labels, np.full(180, 0.3)], 1)
    (perfect,), (mirror,), (constant,) = table_of(codes, {"A": labels}).rows
    assert (perfect.low, perfect.value, perfect.high) == (1, 1, 1)
    assert (mirror.low, mirror.value, mirror.high) == pytest.approx((0, 0, 0), abs=1e-9)
    assert (constant.low, constant.value, constant.high) == pytest.approx((0.5, 0.5, 0.5))
    assert perfect.q == mirror.q < 1e-6
    assert constant.q == 1
    assert perfect.nats == pytest.approx(np.log(2))
    assert constant.nats == 0


def test_q_values_are_the_larger_the_more_is_tested() -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, 180)
    planted = rng.normal(size=(180, 1)) + 0.6 * label[:, None]
    alone = table_of(planted, {"A": label}).rows[0][0]
    noise = rng.normal(size=(180, 40))
    among_noise = table_of(np.hstack([planted, noise]), {"A": label}).rows[0][0]
    assert alone.q < among_noise.q


def test_intervals_are_wider_by_person_than_by_image_when_faces_of_a_person_are_alike() -> None:
    rng = np.random.default_rng(0)
    label = PEOPLE % 2
    codes = rng.normal(size=(30, 1))[PEOPLE] + 0.2 * rng.normal(size=(180, 1))
    by_person = table_of(codes, {"A": label}).rows[0][0]
    by_image = table_of(codes, {"A": label}, np.arange(180)).rows[0][0]
    assert by_person.high - by_person.low > 1.5 * (by_image.high - by_image.low)
    assert by_person.q > by_image.q


def test_a_missing_label_leaves_out_the_image_for_that_label_only() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (180, 2)).astype(float)
    codes = labels.copy()
    labels[:60, 0] = np.nan
    codes[:60, 0] = rng.normal(size=60) * 100  # would spoil the effect
    rows = table_of(codes, two(labels)).rows
    assert rows[0][0].value == rows[1][1].value == 1


def test_without_labels_there_are_no_effects() -> None:
    assert table_of(np.zeros((180, 3)), {}).rows == [[], [], []]


def test_a_label_that_no_face_has_is_left_out_with_the_reason_and_does_not_spoil_the_others() -> (
    None
):
    label = np.arange(180) % 2
    table = table_of(label[:, None], {"A": label, "B": np.zeros(180)})
    assert [contrast.name for contrast in table.contrasts] == ["A"]
    assert "0 people" in table.left_out["B"]
    assert table.rows[0][0].q < 0.05
    rare = np.arange(180) < 60
    found = table_of(
        label[:, None],
        {"A": label, "B": rare},
        np.arange(180),
        min_prevalence=0.4,
    )
    assert found.left_out == {"B": "33.3% of the faces are on its rarer side"}


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
        brightness = (z[:, :1, None, None] / 4).clamp(-1, 1)
        return brightness.repeat(1, 1, 16, 16)


class BentGAN(nn.Module):
    """Its first layer is given no code as it is, so nothing can be read off its weights."""

    z_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 256)

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        return self.layer(z.cos()).tanh().view(-1, 1, 16, 16)


class BrightnessJudge:
    """Sees glasses in bright faces."""

    def __init__(self, *labels: str) -> None:
        self.labels = labels or ("Glasses", "Beard")

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        bright = images.mean((1, 2, 3))
        said = {"Glasses": torch.stack([-bright, bright], 1), "Beard": torch.zeros(len(images), 2)}
        return {name: said[name] for name in self.labels}

    def features(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def words(row: dict[str, Any]) -> str:
    """A dimension's verdict with its labels."""
    return " ".join([row["verdict"], *row["labels"]])


def interpret(model: Any, index: Index, folder: Path, **options: Any) -> dict[str, Any]:
    asked = Interpret(**{"samples": 300, **options})
    judge = BrightnessJudge(*(index.content.labels.keys() - {"Person"}))
    found = claims.interpret(model, judge, index, asked, 0, folder)
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
    assert planted["absent"] == effects.ALONE
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
    found = interpret(
        model,
        index,
        tmp_path,
        **options,
    )
    assert found["listed"] == wanted
    assert len(found["dimensions"]) == 4  # the results keep all
    # the one with a name first
    assert found["traversed"] == [number for number in (0, 1, 3, 2) if number in wanted]


def test_codes_without_a_kl_are_inactive_where_they_draw_nothing(
    index: Index, tmp_path: Path
) -> None:
    found = interpret(
        FakeGAN(),
        index,
        tmp_path,
        order="kl",
    )
    assert found["listed"] == [0, 1, 2]
    assert [row["levels"] for row in found["dimensions"]] == pytest.approx([32, 0, 0], abs=1)
    found = interpret(
        FakeGAN(),
        index,
        tmp_path,
        inactive=False,
    )
    assert found["listed"] == [0]


def test_what_a_dimension_moves_is_told_in_pixels_and_in_features(index: Index) -> None:
    """Features that are the mean brightness: of two faces they differ by as much as their codes do."""
    codes = np.random.default_rng(0).normal(size=(400, 2))

    def draw(z: Tensor) -> Tensor:
        return (z[:, :1, None, None] / 8).repeat(1, 1, 16, 16)

    space = Space(
        codes=codes,
        labels={},
        groups=np.arange(400),
        scale=np.ones(2),
        start=torch.zeros(2),
        activity=None,
        method="",
        faces=lambda rows: pixels.to_uint8(draw(torch.from_numpy(codes[rows]))),
        decode=draw,
    )
    bright, silent = claims.activities(space, lambda images: images.numpy().mean((1, 2)) / 255)
    assert bright.levels == pytest.approx(127.5 / 8)
    seen = codes[np.linspace(0, 399, claims.MOVED).astype(int), 0]
    assert bright.features == pytest.approx(1 / (2**0.5 * seen.std()), rel=0.05)
    assert silent.levels == silent.features == 0
    assert claims.activities(space)[0].features is None


def test_whole_codes_are_scored_against_the_factors_that_are_asked_for(
    index: Index, tmp_path: Path
) -> None:
    found = interpret(
        FakeVAE(index),
        index,
        tmp_path,
        factors=["Glasses"],
    )["codes"]
    assert (found["faces"], found["factors"]) == (60, ["Glasses"])
    assert found["scores"]["mig"] > 0.4  # 60 faces in 20 bins: noise tells something too
    assert found["scores"]["tad_nashae_captured"] == 1
    assert "2 factors" in found["absent"]["dci"]
    whole = interpret(FakeVAE(index), index, tmp_path)["codes"]
    assert whole["factors"] == ["Glasses", "Beard"]  # people are no factor
    with pytest.raises(UserError, match=r"interpret.factors: no label 'glasses'.*'Glasses'"):
        interpret(
            FakeVAE(index),
            index,
            tmp_path,
            factors=["glasses"],
        )


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
                Pixels(),
                Context(
                    index,
                    None,
                    Interpret(),
                    0,
                    ["Glasses"],
                    ["Glasses", "Person"],
                ),
            )
        )
    np.testing.assert_array_equal(found[0].codes, found[1].codes)
    assert found[0].activity == found[1].activity
    assert len(found[0].codes) == len(found[0].labels["Person"]) == 60


def test_a_model_that_draws_nothing_is_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"draws no faces .* run="):
        claims.interpret(
            BrightnessJudge(),
            BrightnessJudge(),
            index,
            Interpret(),
            0,
            tmp_path,
        )


def test_labels_of_too_few_people_are_listed_with_the_reason(index: Index, tmp_path: Path) -> None:
    found = interpret(FakeVAE(index), index, tmp_path)
    assert found["labels"] == ["Glasses"]
    assert found["dimensions"][0]["effects"].keys() == {"Glasses"}
    assert found["not_scored"].keys() == {"Beard"}
    assert "6 people" in found["not_scored"]["Beard"]


def test_an_association_below_the_min_effect_is_not_named(index: Index, tmp_path: Path) -> None:
    model = FakeVAE(index)
    model.mu[:, 0] += 3 * torch.randn(len(model.mu), generator=torch.Generator().manual_seed(1))
    first = interpret(
        model,
        index,
        tmp_path,
        min_effect=0.0,
    )["dimensions"][0]
    effect = 2 * first["effects"]["Glasses"]["low"] - 1  # the interval's end counts
    assert 0.05 < effect < 0.9
    statuses = [
        words(
            interpret(
                model,
                index,
                tmp_path,
                min_effect=least,
            )["dimensions"][0]
        )
        for least in (effect - 0.01, effect + 0.01)
    ]
    assert statuses == ["goes with Glasses", "unnamed"]


def test_a_gan_is_not_named_by_a_judge_that_cannot_tell(index: Index, tmp_path: Path) -> None:
    found = interpret(FakeGAN(), index, tmp_path)
    first = found["dimensions"][0]
    assert words(first) == "unnamed"
    assert first["effects"]["Glasses"]["value"] > 0.99
    assert found["claims"][0]["control"] is None


def test_a_gan_is_named_by_what_the_judge_sees(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Witnesses, "trusts", lambda *of: True)
    found = interpret(FakeGAN(), index, tmp_path)
    first, *others = found["dimensions"]
    assert words(first) == "goes with Glasses"  # nobody but the judge is asked
    assert first["effects"]["Glasses"]["value"] > 0.99
    assert [words(row) for row in others] == ["inactive"] * 2  # they draw nothing
    assert all(row["kl_nats"] is None for row in found["dimensions"])
    assert found["traversed"][0] == 0


def test_traversals_walk_from_minus_3_to_3_along_named_and_then_the_strongest_dimensions(
    index: Index, tmp_path: Path
) -> None:
    model = FakeVAE(index)
    model.mu[:, 1] *= 2  # now the noise carries most nats
    found = interpret(
        model,
        index,
        tmp_path,
        traversed=2,
    )
    assert found["traversed"] == [0, 1]
    sheet, *others = found["sheets"]
    assert {one["title"] for one in others} >= {"quantiles", "lowest faces", "highest faces"}
    assert (sheet["file"], sheet["blocks"]) == ("traversals.png", [0, 1])
    assert sheet["columns"][::4] == ["-3 deviations", "+0 deviations", "+3 deviations"]
    picture = np.array(Image.open(tmp_path / "traversals.png"))
    assert picture.shape == (2 * 16, 9 * 16)
    brightness = np.round((np.linspace(-3, 3, 9) / 4 + 1) * 127.5)
    # dimension 0, from the prior's mean
    np.testing.assert_allclose(
        picture[0, ::16],
        brightness,
        atol=1,
    )
    assert (picture[16] == 128).all()
    assert len(set(picture[31, ::16])) == 9


def test_a_gans_walk_starts_from_a_face_not_from_the_mean(index: Index, tmp_path: Path) -> None:
    found = interpret(
        FakeGAN(),
        index,
        tmp_path,
        traversed=5,
    )
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
    assert [words(row) for row in found["dimensions"]] == ["unnamed", "inactive", "inactive"]
    assert (tmp_path / "traversals.png").is_file()


def test_a_collapsed_generator_has_no_effects(index: Index, tmp_path: Path) -> None:
    model = FakeGAN()
    model.sample = lambda z, c: torch.zeros(
        len(z),
        1,
        16,
        16,
    )  # type: ignore[method-assign]
    found = interpret(model, index, tmp_path)
    assert [words(row) for row in found["dimensions"]] == ["inactive"] * 3


def test_runs_that_are_none_or_have_no_claims_are_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    stage = stages.of("interpret")
    plan = Plan(("interpret",), None, None)
    own = RunDir(tmp_path / "own")
    run = replace(
        Run(),
        paths=Paths(str(tmp_path)),
        interpret=Interpret(runs=["scond"]),
    )
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "config.yaml").write_text("seed: 1")
    with pytest.raises(UserError, match=r"scond is no run folder.*second"):
        stage.check(run, own, plan)

    # one that was not interpreted
    other = replace(run, interpret=Interpret(runs=["second"]))
    with pytest.raises(UserError, match=r"second has no claims yet; .*run=second"):
        stage.check(other, own, plan)
    rundir.write_json(tmp_path / "second" / "interpret" / "results.json", {"claims": [1]})
    stage.check(other, own, plan)


def test_a_space_that_a_model_turns_out_not_to_have_is_told_or_refused_if_asked_for(
    index: Index, tmp_path: Path
) -> None:
    found = interpret(BentGAN(), index, tmp_path)
    assert found["space"] == "z"
    assert found["absent_spaces"].keys() == {"boundary", "ganspace", "sefa"}
    assert "80% of other faces on the right side" in found["absent_spaces"]["boundary"]
    assert "takes the code itself" in found["absent_spaces"]["sefa"]
    with pytest.raises(Unsuited, match="leave it out"):
        interpret(BentGAN(), index, tmp_path, spaces=["z", "sefa"])
