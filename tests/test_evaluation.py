"""The judge's own scores, the scale of a distance, nearest faces, and both protocols."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from registered import small
from torch import Tensor
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_confusion_matrix,
)

from facefactory import UserError, registry, sampling
from facefactory.data.sets import labels, loader, pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.draws import normal
from facefactory.evaluation import (
    Evaluation,
    autoencoders,
    extractors,
    features,
    judge,
    nearest,
)
from facefactory.evaluation.extractors import Judge, Looked, inception, inception_bfloat16
from facefactory.evaluation.extractors import judge as judge_eye
from facefactory.evaluation.subjects import Context, classifier, generator
from facefactory.facts import Label, Size
from facefactory.interpret import Interpret, claims
from facefactory.metrics import Array, intervals
from facefactory.metrics.features import kernel_distance
from facefactory.metrics.images import psnr, ssim
from facefactory.results import (
    Drawn,
    Goal,
    Protocol,
    Reconstruction,
    Score,
    Strip,
)

BINARY = {"Glasses": Label("binary", ("0", "1"))}


def flattened(images: Tensor) -> Array:
    """The simplest features: the pixels."""
    return images.flatten(1).double().numpy() / 255


def table_of(values: list[int], people: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"Glasses": values, "Person": people})


def certain(values: list[int], classes: int = 2) -> Tensor:
    """Logits that are sure of `values`."""
    return 10 * torch.nn.functional.one_hot(torch.tensor(values), classes).float()


# -- folds -----------------------------------------------------------------------------------------------------------


def test_a_person_lies_in_one_fold_and_folds_hold_as_many_people() -> None:
    groups = np.repeat(np.arange(23) * 3 - 5, np.arange(1, 24))  # people with 1 to 23 images
    fold = judge.folds(groups, 5)
    assert all(len(set(fold[groups == name])) == 1 for name in np.unique(groups))
    sizes = [len(np.unique(groups[fold == number])) for number in range(5)]
    assert sum(sizes) == 23
    assert max(sizes) - min(sizes) == 1


def test_folds_are_cut_through_the_order_of_people_and_always_the_same() -> None:
    groups = np.arange(40)
    fold = judge.folds(groups, 4)
    assert fold.tolist() != (groups % 4).tolist()
    assert fold.tolist() != sorted(fold)
    assert fold.tolist() == judge.folds(groups, 4).tolist()


# -- countable -------------------------------------------------------------------------------------------------------


def test_a_label_with_7_people_on_a_side_gets_counts_and_a_reason_and_no_score() -> None:
    people = np.repeat(np.arange(15), 2)
    table = table_of([int(person < 7) for person in people], people.tolist())
    found = judge.scores({"Glasses": certain(table["Glasses"].tolist())}, table, BINARY, "Person")[
        "Glasses"
    ]
    assert found["images"] == [16, 14]
    assert found["people"] == [8, 7]
    assert found["scored"] is False
    assert "7 people have 1" in found["reason"]
    assert "8" in found["reason"]
    assert not {"balanced_accuracy", "auroc", "confusion"} & found.keys()


def test_a_label_with_8_people_on_each_side_is_scored_however_few_images_they_have() -> None:
    table = table_of([0] * 8 + [1] * 8, list(range(16)))
    found = labels.countable(table, BINARY, labels.people(table, "Person"))["Glasses"]
    assert found["scored"] is True
    assert found["people"] == [8, 8]
    assert "reason" not in found


def test_identities_real_labels_and_missing_values_are_not_counted() -> None:
    schema = {**BINARY, "Person": Label("identity", ("0",)), "Age": Label("real")}
    table = table_of([0, 1, -1], [0, 1, 2]).assign(Age=[1.0, np.nan, 3.0])
    found = labels.countable(table, schema, labels.people(table, "Person"))
    assert list(found) == ["Glasses"]
    assert found["Glasses"]["images"] == [1, 1]


def test_an_image_of_nobody_known_stands_alone() -> None:
    table = table_of([0, 0, 0, 0], [4, -1, 4, -1])
    assert len(set(labels.people(table, "Person"))) == 3
    assert labels.people(table, "Person")[0] == labels.people(table, "Person")[2]
    assert len(set(labels.people(table, None))) == 4


# -- scores ----------------------------------------------------------------------------------------------------------

PEOPLE = np.repeat(np.arange(12), 5).tolist()
GLASSES = [0, 0, 0, 1, 1] * 12  # everybody on both sides: 36 images without, 24 with


def scored(
    logits: Tensor,
    values: list[int] = GLASSES,
    people: list[int] = PEOPLE,
    group: str | None = "Person",
) -> Any:
    return judge.scores({"Glasses": logits}, table_of(values, people), BINARY, group)["Glasses"]


def test_perfect_logits_score_1_with_a_diagonal_confusion() -> None:
    found = scored(certain(GLASSES))
    assert found["balanced_accuracy"] == found["auroc"] == 1
    assert found["balanced_accuracy_interval"] == found["auroc_interval"] == [1, 1]
    assert found["confusion"] == [[36, 0], [0, 24]]


def test_mirrored_logits_score_0() -> None:
    found = scored(-certain(GLASSES))
    assert found["balanced_accuracy"] == found["auroc"] == 0
    assert found["confusion"] == [[0, 36], [24, 0]]


def test_constant_logits_score_one_half_and_the_rows_of_the_confusion_are_the_true_classes() -> (
    None
):
    found = scored(torch.tensor([[0.0, 1.0]]).expand(60, 2))  # always "1"
    assert found["balanced_accuracy"] == found["auroc"] == 0.5
    assert found["confusion"] == [[0, 36], [0, 24]]  # 36 true "0" taken for "1": row 0, column 1


def test_duplicated_images_change_neither_the_scores_nor_their_intervals() -> None:
    logits = torch.randn(
        60,
        2,
        generator=torch.Generator().manual_seed(0),
    )
    once = scored(logits)
    twice = scored(
        logits.repeat_interleave(2, 0),
        np.repeat(GLASSES, 2).tolist(),
        np.repeat(PEOPLE, 2).tolist(),
    )
    for name in ("balanced_accuracy", "auroc", "balanced_accuracy_interval", "auroc_interval"):
        assert twice[name] == pytest.approx(once[name], abs=1e-6)
    low, high = once["auroc_interval"]
    assert low < once["auroc"] < high


def test_scores_leave_out_images_without_the_label() -> None:
    logits = certain(GLASSES)
    missing = [
        -1 if number % 5 == 0 else value for number, value in enumerate(GLASSES)
    ]  # each person's first image
    logits[::5] = -logits[::5]  # where the label is missing the judge would be wrong
    found = scored(logits, missing)
    assert found["auroc"] == found["balanced_accuracy"] == 1
    assert found["confusion"] == [[24, 0], [0, 24]]


def test_scores_of_three_classes_are_means_over_classes_not_over_images() -> None:
    schema = {"Pose": Label("categorical", ("l", "m", "r"))}
    values = [0, 1, 1, 1, 1, 1, 1, 2] * 10
    table = pd.DataFrame({"Pose": values, "Person": np.repeat(np.arange(10), 8)})
    right_for_two = certain([min(value, 1) for value in values], 3)  # never "r"
    found = judge.scores({"Pose": right_for_two}, table, schema, "Person")["Pose"]
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["confusion"] == [[10, 0, 0], [0, 60, 0], [0, 10, 0]]


@pytest.mark.parametrize("classes", [2, 3])
def test_accuracy_auroc_and_confusion_agree_with_torchmetrics(classes: int) -> None:
    rng = np.random.default_rng(classes)
    target = rng.integers(0, classes, 200)
    chances = rng.dirichlet(np.ones(classes), 200).round(1).astype(np.float32)  # with ties
    both = torch.from_numpy(chances), torch.from_numpy(target), classes
    accuracy = float(multiclass_accuracy(*both, average="macro"))
    assert judge.balanced_accuracy(chances, target) == pytest.approx(accuracy, abs=1e-6)
    assert judge.mean_auroc(chances, target) == pytest.approx(float(multiclass_auroc(*both)))
    counts = judge.confusion(target, chances.argmax(1), classes)
    assert counts.tolist() == multiclass_confusion_matrix(*both).tolist()


def test_intervals_by_person_are_wider_than_by_image_when_the_judge_errs_by_person() -> None:
    values = np.array(GLASSES)
    wrong = np.isin(PEOPLE, [0, 1, 2])
    logits = certain(np.where(wrong, 1 - values, values).tolist())
    by_person, by_image = (
        np.ptp(scored(logits, group=group)["balanced_accuracy_interval"])
        for group in ("Person", None)
    )
    assert by_person > 1.5 * by_image > 0


def test_intervals_of_few_people_are_students_and_end_at_1() -> None:
    people = np.arange(16)
    values = [0, 1] * 8
    logits = certain([1 - value if person == 0 else value for person, value in enumerate(values)])
    found = scored(logits, values, people.tolist())
    assert found["balanced_accuracy"] == pytest.approx(15 / 16)

    def right(ids: np.ndarray[Any, np.dtype[np.int64]]) -> float:
        sides = [ids[ids % 2 == side] for side in (0, 1)]
        return (
            float(np.mean([(side != 0).mean() for side in sides]))
            if all(map(len, sides))
            else np.nan
        )

    draws = intervals.bootstrap(right, people)
    low, high = found["balanced_accuracy_interval"]
    assert high == 1
    assert low == pytest.approx(
        15 / 16 - 2.3646 * np.nanstd(draws, ddof=1), abs=1e-4
    )  # 8 people a side: t of 7 degrees


# -- images as pictures, draws ---------------------------------------------------------------------------------------


class LinearModel:
    """z -> smooth images of 16 x 16: a fixed linear map through tanh."""

    z_dim = 4

    def __init__(self) -> None:
        coarse = torch.randn(
            self.z_dim,
            1,
            4,
            4,
            generator=torch.Generator().manual_seed(0),
        )
        self.map = torch.nn.functional.interpolate(coarse, 16, mode="bilinear").flatten(1)

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        return torch.tanh(z @ self.map / 2).view(-1, 1, 16, 16)


class LinearVAE(LinearModel):
    """The same with an encoder that sees nothing: every face is the mean one."""

    def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(images), self.z_dim), torch.zeros(len(images), self.z_dim)

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        return self.sample(z, c)


def nothing(count: int) -> Tensor:
    """The conditions of a model that has none."""
    return torch.empty(count, 0)


def test_the_first_draws_are_the_same_for_any_count() -> None:
    model = LinearModel()
    many = sampling.draw(model, nothing(600), 3, "evaluation")
    assert many.shape == (600, 16, 16, 1)
    assert many.dtype == torch.uint8
    for count in (1, 64, 256, 257):
        assert torch.equal(sampling.draw(model, nothing(count), 3, "evaluation"), many[:count])
    assert len(torch.unique(many.flatten(1), dim=0)) == 600  # chunks do not repeat each other


def test_another_seed_or_purpose_draws_other_images() -> None:
    model = LinearModel()
    first = sampling.draw(model, nothing(8), 3, "evaluation")
    assert not torch.equal(sampling.draw(model, nothing(8), 4, "evaluation"), first)
    assert not torch.equal(sampling.draw(model, nothing(8), 3, "traversal"), first)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_whole_rows_left_to_right(channels: int) -> None:
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 2, 3, channels)
    picture = np.array(generator.grid(images, 2))
    assert picture.shape == ((4, 6) if channels == 1 else (4, 6, 3))
    assert picture.reshape(4, 6, channels)[::2, ::3, 0].tolist() == [
        [0, 1],
        [2, 3],
    ]  # the fifth fills no row


# -- nearest faces, and the faces themselves --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(index: Index) -> Tensor:
    return Shards(index, "train").images()


@pytest.fixture(scope="module")
def held_out(index: Index) -> Tensor:
    return Shards(index, "test").images()


def ratio(fake: Tensor, real: Tensor, held_out: Tensor) -> float:
    """The memorisation ratio of fakes."""
    (_, drawn), (_, usual) = (nearest.nearest(images, real) for images in (fake, held_out))
    return nearest.memorisation_ratio(drawn, usual)


def test_copies_are_found_also_mirrored_with_ratio_0(real: Tensor, held_out: Tensor) -> None:
    fake = torch.cat([real[[30, 4]], real[[11]].flip(2)])
    assert torch.equal(nearest.nearest(fake, real)[0], fake)
    assert ratio(fake, real, held_out) == 0


def test_upside_down_faces_are_no_copies(real: Tensor, held_out: Tensor) -> None:
    turned = real[:5].flip(1)
    assert not torch.equal(nearest.nearest(turned, real)[0], turned)
    assert ratio(turned, real, held_out) > 0


def test_faces_as_new_as_those_of_other_people_have_ratio_1(
    real: Tensor, held_out: Tensor
) -> None:
    assert ratio(held_out, real, held_out) == 1


def test_the_ratio_is_of_median_distances() -> None:
    flat = torch.zeros(
        1,
        2,
        2,
        1,
        dtype=torch.uint8,
    )
    fake, other = (
        torch.cat([flat + value for value in values]) for values in ([1, 3, 200], [6, 6, 9])
    )
    assert ratio(fake, flat, other) == pytest.approx(3 / 6)


# -- the features of the original FID -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [
        (1, 5),
        (48, 32),
        (64, 64),
        (218, 178),
        (299, 299),
        (512, 400),
    ],
)
def test_inceptions_resizing_is_torch_fidelitys(size: tuple[int, int]) -> None:
    shown = torch.randint(
        0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0)
    ).float()
    rows, columns = map(inception.resizing, size)
    published = interpolate_bilinear_2d_like_tensorflow1x(
        shown, (inception.SIDE, inception.SIDE), align_corners=False
    )
    assert torch.allclose(rows @ shown @ columns.T, published, rtol=0, atol=1e-4)


def test_inception_features_are_torch_fidelitys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: Tensor
) -> None:
    published = feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    monkeypatch.setenv("FACEFACTORY_WEIGHTS", str(tmp_path))
    path = tmp_path / inception.WEIGHTS.file
    with warnings.catch_warnings(), monkeypatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(
            feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {}
        )
        patch.setattr(published, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        direct = published(
            "random", ["2048", "logits_unbiased"]
        )  # never the real weights: the store is empty
    for layer in direct.modules():
        if isinstance(
            layer, torch.nn.Conv2d
        ):  # torch's own scale would let the features fade to 1e-8
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)  # type: ignore[operator, union-attr]
            layer.running_var.uniform_(0.5, 1.5)  # type: ignore[operator, union-attr]
    torch.save(direct.state_dict(), path)
    wanted = dataclasses.replace(
        inception.WEIGHTS, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
    )
    for module in (inception, inception_bfloat16):
        monkeypatch.setattr(module, "WEIGHTS", wanted)
    monkeypatch.setattr(inception.Inception, "batch", 2)
    extractor = inception.load(Size(16, 16), torch.device("cpu"), None)
    with torch.inference_mode():
        gray = real[:3]
        features_of, logits_of = direct(gray.permute(0, 3, 1, 2).repeat(1, 3, 1, 1))
        colour = torch.stack([real[:1, ..., 0], real[1:2, ..., 0], real[2:3, ..., 0]], 3)
        coloured = direct(colour.permute(0, 3, 1, 2).contiguous())[0]
    assert features_of.shape == (3, 2048)
    assert features_of.std(0).mean() > 0.01 * features_of.mean() > 1e-4
    looked = features.look(extractor, gray)
    assert looked.logits is not None
    found = features.look(extractor, colour).features
    for ours, published_ones in (
        (looked.features, features_of),
        (looked.logits, logits_of),
        (found, coloured),
    ):
        assert (ours - published_ones).norm() < 1e-6 * published_ones.norm()

    # in bfloat16 nearly the same, which is said
    narrow = inception_bfloat16.load(Size(16, 16), torch.device("cpu"), None)
    off = (features.look(narrow, gray).features - features_of).norm() / features_of.norm()
    assert 1e-4 < off < 0.02
    assert "bfloat16" in narrow.resize
    assert not set(inception_bfloat16.NAMES.values()) & set(inception.NAMES.values())
    assert "inception_bfloat16" not in extractors.usual()  # only where it is asked for


def test_judge_features_are_the_classifiers(real: Tensor) -> None:
    eye = judge_eye.load(Size(16, 16), torch.device("cpu"), Judge(PixelJudge(), "0123456789"))
    np.testing.assert_allclose(
        features.sample(eye, real[:70]),
        flattened(real[:70]),
        atol=1e-6,
    )
    assert eye.weights == "01234567"


# -- the protocols ---------------------------------------------------------------------------------------------------


class PixelJudge:
    """A judge that looks at plain pixels, and knows no label."""

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        return {}

    def features(self, images: Tensor) -> Tensor:
        return (images.flatten(1) + 1) / 2


@pytest.fixture(autouse=True)
def judged_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the protocol: the published networks have tests of their own."""
    monkeypatch.setattr(extractors, "present", lambda: ["judge"])


def context_of(index: Index, network: Any = None, **options: Any) -> Context:
    """A judge's network is known by its digest: what was computed with it is kept beside the shards."""
    network = network or PixelJudge()
    asked = Evaluation(**{"fakes": 80, **options})
    judge = Judge(network, hashlib.sha256(type(network).__name__.encode()).hexdigest())
    return Context(
        index,
        asked,
        3,
        generator.GOAL,
        torch.device("cpu"),
        judge,
        "0.5",
    )


def evaluate(
    model: Any, index: Index, folder: Path, network: Any = None, **options: Any
) -> dict[str, Any]:
    return generator.full(model, context_of(index, network, **options), folder)


def values(found: dict[str, Any]) -> dict[str, float]:
    return {one["name"]: one["value"] for one in found["scores"]}


def test_the_generator_protocol_writes_pictures_and_strict_json(
    index: Index, tmp_path: Path
) -> None:
    found = json.loads(json.dumps(evaluate(LinearModel(), index, tmp_path), allow_nan=False))
    assert {"kd_judge", "precision_judge", "recall_judge"} <= values(found).keys()
    assert "weights.py fetch" in found["not_staged"]["inception"]
    assert found["goal"] == {
        "metric": "kd_lite0",
        "better": "lower",
    }
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "nearest.png",
        "reference.png",
        "samples.png",
    ]

    # one protocol, which all scores name
    (name, protocol), *others = found["protocols"].items()
    assert not others
    assert Protocol(**protocol).id() == name
    assert (protocol["fakes"], protocol["reals"], protocol["seed"], protocol["average"]) == (
        80,
        45,
        3,
        "0.5",
    )
    assert protocol["features"] == "judge"
    assert protocol["dataset"] == index.images_digest[:12]
    assert all(one["protocol"] == name for one in found["scores"])


def test_a_score_has_an_interval_that_holds_it_a_scale_and_what_it_sees(
    index: Index, tmp_path: Path
) -> None:
    found = evaluate(LinearModel(), index, tmp_path, fakes=200)
    kd = next(Score(**one) for one in found["scores"] if one["name"] == "kd_judge")
    assert kd.low is not None
    assert kd.high is not None
    assert kd.low < kd.value < kd.high
    assert kd.high - kd.low < kd.value
    assert kd.scale.keys() == {"floor", "new_people", "blur", "ghosts", "repeat", "noise"}
    spoilt = set(registry.names("evaluation.distortions")) - {
        "people_left_out"
    }  # of whom there are but 9
    assert set(kd.valid) | set(kd.blind) == spoilt
    assert "blur" in kd.valid
    assert "10 people" in found["sights"]["judge"]["left_out"]["people_left_out"]
    assert not any(
        one["scale"] for one in found["scores"] if one["kind"] == "precision"
    )  # it depends on the counts


def test_the_interval_covers_what_other_draws_score(index: Index, tmp_path: Path) -> None:
    runs = []
    for seed in range(20):
        context = dataclasses.replace(context_of(index, fakes=100), seed=seed)
        found = generator.full(LinearModel(), context, tmp_path)
        runs.append(next(Score(**one) for one in found["scores"] if one["name"] == "kd_judge"))
    truth = np.mean([one.value for one in runs])
    covered = sum(
        one.low <= truth <= one.high
        for one in runs
        if one.low is not None and one.high is not None
    )
    assert covered >= 17


def test_the_pictures_show_the_first_draws_and_below_them_their_nearest_faces(
    index: Index, tmp_path: Path, real: Tensor
) -> None:
    evaluate(LinearModel(), index, tmp_path)
    fake = sampling.draw(LinearModel(), nothing(80), 3, "evaluation")
    samples, pairs = (
        np.array(Image.open(tmp_path / f"{name}.png")) for name in ("samples", "nearest")
    )
    assert samples.shape == (8 * 16, 8 * 16)
    assert pairs.shape == (2 * 16, 12 * 16)
    np.testing.assert_array_equal(samples[16:32, 16:32], fake[9, ..., 0])
    twins, _ = nearest.nearest(fake, real)
    np.testing.assert_array_equal(pairs[:16, 48:64], fake[3, ..., 0])
    np.testing.assert_array_equal(pairs[16:, 48:64], twins[3, ..., 0])


def test_a_generator_that_draws_training_faces_scores_as_well_as_can_be(
    index: Index, tmp_path: Path, real: Tensor
) -> None:
    memory = SimpleNamespace(
        z_dim=2,
        sample=lambda z, c: pixels.to_model(real[(z[:, 0].abs() * 1e5).long() % len(real)]),
    )
    found = evaluate(memory, index, tmp_path, fakes=400)
    assert found["memorisation_ratio"] == 0
    assert values(found)["authenticity_judge"] == 0
    assert values(found)["precision_judge"] == 1
    assert values(found)["kd_judge"] < found["sights"]["judge"]["marks"]["kd"]["new_people"]
    worse = evaluate(LinearModel(), index, tmp_path)
    assert values(worse)["kd_judge"] > values(found)["kd_judge"]
    assert worse["memorisation_ratio"] > 0.5


def test_models_with_an_encoder_also_show_reconstructions(
    index: Index, tmp_path: Path, held_out: Tensor
) -> None:
    evaluate(LinearVAE(), index, tmp_path)
    shown = np.array(Image.open(tmp_path / "reconstructions.png"))
    assert shown.shape == (
        4 * 16,
        12 * 16,
    )  # training faces, what becomes of them, people never seen, what becomes of them
    np.testing.assert_array_equal(shown[32:48, :16], held_out[0, ..., 0])
    mean_face = pixels.to_uint8(LinearVAE().decode(torch.zeros(1, 4), nothing(1)))[0, ..., 0]
    np.testing.assert_array_equal(shown[16:32, -16:], mean_face)
    np.testing.assert_array_equal(shown[48:, -16:], mean_face)


def test_reconstructions_are_scored_and_samples_under_each_prior(
    index: Index, tmp_path: Path, real: Tensor, held_out: Tensor
) -> None:
    class Gaussian:
        def nats(self, decoded: Tensor, images: Tensor) -> Tensor:
            return (decoded - images).square() / 2

    context = dataclasses.replace(
        context_of(index), likelihood=Gaussian(), goal=Goal("kd_judge", "lower")
    )
    found = generator.full(LinearVAE(), context, tmp_path)
    train, test = (Reconstruction(**one) for one in found["reconstructions"])
    assert (train.split, train.images, test.split, test.images) == ("train", 45, "test", 15)
    mean_face = LinearVAE().decode(torch.zeros(1, 4), nothing(1))
    again = pixels.to_uint8(mean_face).expand(15, -1, -1, -1).numpy()
    assert test.scores == {
        **psnr.score(held_out.numpy(), again),
        **ssim.score(held_out.numpy(), again),
    }
    z = normal(3, 0, "nats", 15, 4)  # the posterior is N(0, I): no nats of the code
    decoded = LinearVAE().decode(z, nothing(15))
    wanted = (decoded - pixels.to_model(held_out)).square().sum((1, 2, 3)).mean() / 2
    assert test.nats["kl_nats"] == 0
    assert test.nats["neg_elbo_nats"] == test.nats["reconstruction_nats"]
    assert test.nats["neg_elbo_nats"] == pytest.approx(float(wanted), rel=1e-5)

    drawn = {one["prior"]: Drawn(**one) for one in found["priors"]}
    assert drawn.keys() == set(registry.names("evaluation.priors"))
    of_normal, of_mixture = (
        Score(**drawn[name].scores[0]) for name in ("normal", "gaussian_mixture")
    )
    assert of_normal.name == of_mixture.name == "kd_judge"
    assert of_normal.value == values(found)["kd_judge"]
    same = pixels.to_uint8(mean_face).expand(80, -1, -1, -1)  # all codes are 0
    wanted_kd = kernel_distance.score(flattened(real), flattened(same))["kd"]
    assert of_mixture.value == pytest.approx(wanted_kd, rel=0.01)
    grid = np.array(Image.open(tmp_path / drawn["gaussian_mixture"].picture)).astype(int)
    assert np.ptp(grid[:16, :16] - grid[16:32, 32:48]) <= 2
    without = generator.full(LinearVAE(), context_of(index), tmp_path)
    assert without["reconstructions"][0]["nats"] == {"kl_nats": 0}


@pytest.mark.parametrize(
    "name", [name for name in registry.names("models") if name.startswith("vae/")]
)
def test_every_autoencoder_shows_faces_above_what_it_makes_of_them(
    index: Index, held_out: Tensor, name: str
) -> None:
    torch.manual_seed(0)
    model = registry.build("models", small("models", name), index.facts).eval()
    shards = Shards(index, "test")
    shown = autoencoders.shown(model, shards, 100, 5)
    assert shown.shape == (10, 16, 16, 1)
    rows = np.linspace(0, 14, 5).astype(int)
    assert torch.equal(shown[:5], held_out[rows])
    found = autoencoders.reconstruct(model, None, shards, "test", 100, 0)
    assert found.images == 15
    assert found.nats["kl_nats"] > 0
    assert found.scores["psnr"] > 0


def test_codes_that_are_words_are_reconstructed_scored_and_shown_too(
    index: Index, tmp_path: Path, held_out: Tensor
) -> None:
    torch.manual_seed(0)
    spec = {"name": "vae/vq", "width": 4, "levels": 2, "codes": 8, "code_dim": 4}
    model = registry.build("models", spec, index.facts).eval()
    likelihood = registry.build("objectives.likelihoods", {"name": "laplace"}, index.facts)
    context = context_of(index)
    context = dataclasses.replace(
        context,
        likelihood=likelihood,
        goal=Goal("kd_judge", "lower"),
    )
    found = generator.full(model, context, tmp_path)

    # below the faces, what their words say of them
    images = pixels.to_model(held_out)
    with torch.inference_mode():
        again = model.reconstruct(images, nothing(15))
        words = model.words(model.vectors(images))
        logits = model.prior(words, nothing(15)).log_softmax(2)
        of_pixels = likelihood.nats(again, images).sum((1, 2, 3)).double().mean().item()
    shown = np.array(Image.open(tmp_path / "reconstructions.png"))
    np.testing.assert_array_equal(shown[32:48, :16], held_out[0, ..., 0])
    np.testing.assert_array_equal(shown[48:, -16:], pixels.to_uint8(again)[-1, ..., 0])

    # nats of the words and of the pixels around what they paint
    test = Reconstruction(**found["reconstructions"][1])
    assert test.scores == psnr.score(
        held_out.numpy(), pixels.to_uint8(again).numpy()
    ) | ssim.score(held_out.numpy(), pixels.to_uint8(again).numpy())
    of_words = -logits.gather(2, words[..., None]).double().sum((1, 2)).mean().item()
    assert test.nats["kl_nats"] == pytest.approx(of_words, rel=1e-5)
    assert test.nats["neg_elbo_nats"] == pytest.approx(of_words + of_pixels, rel=1e-5)

    # and one prior, the model's own
    (own,) = (Drawn(**one) for one in found["priors"])
    assert (own.prior, own.picture) == ("own", "samples.png")
    assert Score(**own.scores[0]).value == values(found)["kd_judge"]


def test_strips_show_the_nearest_faces_in_pixels_and_in_features(
    index: Index, tmp_path: Path, real: Tensor, held_out: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bright:
        """How bright the upper and the lower half of an image are."""

        batch = 8
        weights = "00000000"
        resize = "none"

        def __call__(self, images: Tensor) -> Looked:
            halves = images.float().view(len(images), 2, -1).mean(2)
            return Looked(halves)

    monkeypatch.setattr(extractors, "present", lambda: ["lite0"])
    monkeypatch.setattr(extractors, "load", lambda *_: Bright())
    found = generator.full(LinearModel(), context_of(index), tmp_path)
    by_pixels, by_features = (Strip(**one) for one in found["strips"])
    fake = sampling.draw(LinearModel(), nothing(12), 3, "evaluation")
    _, least = nearest.nearest(fake, real)
    assert (by_pixels.features, by_pixels.picture) == ("pixels", "nearest.png")
    np.testing.assert_allclose(by_pixels.distances, least)

    eye = Bright()
    sides = [eye(images).features for images in (fake, real, held_out)]
    table = torch.cdist(sides[0].double(), sides[1].double())
    np.testing.assert_allclose(
        by_features.distances,
        table.min(1).values,
        rtol=1e-6,
    )
    usual = torch.cdist(sides[2].double(), sides[1].double()).min(1).values
    assert by_features.usual == pytest.approx(float(np.median(usual)))
    picture = np.array(Image.open(tmp_path / by_features.picture))
    assert by_features.features == "lite0"
    assert picture.shape == (4 * 16, 12 * 16)
    np.testing.assert_array_equal(picture[:16, 32:48], fake[2, ..., 0])
    for row, place in enumerate(table[2].argsort(stable=True)[:3], 1):
        shown = picture[16 * row : 16 * row + 16, 32:48]
        np.testing.assert_array_equal(shown, real[place, ..., 0])


def test_inceptions_scores_have_the_names_of_the_field(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pixels:
        """Pixels under another name."""

        batch = 32
        weights = inception.WEIGHTS.digest
        resize = "to 299"

        def __call__(self, images: Tensor) -> Looked:
            return Looked((images.flatten(1) / 255).float())

    monkeypatch.setattr(extractors, "present", lambda: ["inception", "judge"])
    monkeypatch.setattr(
        extractors, "load", lambda name, *rest: Pixels() if name == "inception" else eye(*rest)
    )

    def eye(size: Size, device: torch.device, judge: Judge) -> Any:
        return judge_eye.load(size, device, judge)

    found = evaluate(LinearModel(), index, tmp_path)
    assert values(found)["kid"] == pytest.approx(
        values(found)["kd_judge"], rel=1e-3
    )  # here both look at pixels
    assert values(found).keys() >= {"fid", "precision_inception", "recall_inception"}
    assert {one["features"] for one in found["protocols"].values()} == {"judge", "inception"}


def test_the_reference_is_looked_at_once_for_all_models(index: Index, tmp_path: Path) -> None:
    seen: list[int] = []

    class CountingJudge(PixelJudge):
        def features(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return super().features(images)

    network = CountingJudge()
    evaluate(LinearModel(), index, tmp_path, network)
    first = len(seen)
    evaluate(LinearModel(), index, tmp_path, network)
    assert len(seen) - first == 2 + 1  # batches of 64: 80 fakes, 15 held-out people


def test_a_quick_score_is_the_full_score_of_fewer_images(index: Index, tmp_path: Path) -> None:
    context = dataclasses.replace(
        context_of(index, quick_fakes=80), goal=Goal("kd_judge", "lower")
    )
    quick = generator.quick(LinearModel(), context)
    assert quick == {
        "kd_judge": pytest.approx(
            values(generator.full(LinearModel(), context, tmp_path))["kd_judge"]
        )
    }


def test_the_nearest_face_is_the_same_whatever_the_chunks(
    real: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = sampling.draw(LinearModel(), nothing(20), 0, "evaluation")
    whole = nearest.nearest(fake, real)
    monkeypatch.setattr(nearest, "CHUNK", 4)
    parts = nearest.nearest(fake, real)
    assert torch.equal(parts[0], whole[0])
    assert parts[1].tolist() == whole[1].tolist()


def test_fakes_stand_above_their_nearest_faces_however_few_they_are(
    index: Index, tmp_path: Path
) -> None:
    evaluate(LinearModel(), index, tmp_path, fakes=8)
    assert np.array(Image.open(tmp_path / "nearest.png")).shape == (2 * 16, 8 * 16)


def test_a_held_out_split_that_is_the_reference_is_refused(real: Tensor) -> None:
    with pytest.raises(UserError, match=r"evaluation\.held_out"):
        ratio(real[:4], real, real)


class Elsewhere(Tensor):
    """Values as if on a GPU: they meet no tensors of the CPU and become no arrays; only `.cpu()` brings them back."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        moved = func.__name__ == "to" and isinstance(args[1], cls)
        if moved or func.__name__ == "cpu":
            with torch._C.DisableTorchFunctionSubclass():
                values = args[0].to(args[1].dtype) if moved else args[0]
                return values.as_subclass(cls if moved else Tensor)
        parts = [
            part for one in args for part in (one if isinstance(one, list | tuple) else [one])
        ]
        if func.__name__ in ("numpy", "tolist", "__array__") or any(
            type(part) is Tensor and part.ndim for part in parts
        ):
            raise RuntimeError(f"{func.__name__}: expected all tensors to be on the same device")
        return super().__torch_function__(func, types, args, kwargs or {})


class Placed:
    """A small generator that is also a judge; it works where its weights are."""

    z_dim = 4

    def __init__(self, kind: type[Tensor]) -> None:
        self.weights = LinearModel().map.as_subclass(kind)

    def parameters(self) -> Any:
        return iter([self.weights])

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        return torch.tanh(z @ self.weights / 2).view(-1, 1, 16, 16)

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weights.T

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        return {name: self.features(images)[:, :2] for name in ("Glasses", "Beard")}


class PlacedVAE(Placed):
    def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        mu = self.features(images) / 64
        return mu, mu * 0

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        return self.sample(z, c)


@pytest.mark.parametrize("model", [Placed, PlacedVAE])
def test_images_go_to_where_a_model_computes_and_come_back(
    model: Any, index: Index, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        Placed(Elsewhere).sample(torch.zeros(1, 4), nothing(1))
    found = []
    for kind in (Tensor, Elsewhere):
        network = model(kind)
        judged = Placed(kind)
        scores = evaluate(network, index, tmp_path, judged)
        codes = claims.interpret(
            network,
            judged,
            index,
            Interpret(samples=300),
            0,
            tmp_path,
        )
        labels = features.logits(judged, Shards(index, "test"))["Glasses"].tolist()
        pictures = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
        found.append((scores, codes, labels, pictures))
    assert found[0] == found[1]


class LookingUp:
    """A classifier that knows each face by heart: logits 10 for its true class."""

    def __init__(self, shards: Shards) -> None:
        images = pixels.to_model(shards.images())
        self.known = {face.numpy().tobytes(): row for row, face in enumerate(images)}
        self.table = shards.table

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        rows = [self.known[face.numpy().tobytes()] for face in images]
        return {
            name: certain(self.table[name].iloc[rows].clip(0).tolist())
            for name in ("Glasses", "Beard")
        }


def test_the_classifier_protocol_scores_the_held_out_split(index: Index, tmp_path: Path) -> None:
    options = Evaluation(protocol="classifier", held_out="train")  # 9 people; the test split has 3
    context = Context(
        index,
        options,
        0,
        classifier.GOAL,
        torch.device("cpu"),
    )
    found = classifier.full(LookingUp(Shards(index, "train")), context, tmp_path)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["labels"].keys() == {"Glasses", "Beard"}  # a person is no attribute
    assert (
        found["labels"]["Glasses"]["auroc"] == found["labels"]["Glasses"]["balanced_accuracy"] == 1
    )
    assert found["labels"]["Beard"]["scored"] is False
    assert "auroc" not in found["labels"]["Beard"]
    ((name, protocol),) = found["protocols"].items()
    assert Protocol(**protocol).id() == name
    assert (protocol["split"], protocol["reals"], protocol["dataset"]) == (
        "train",
        45,
        index.images_digest[:12],
    )


def test_classifiers_are_searched_by_their_mean_balanced_accuracy_on_held_out_people(
    index: Index,
) -> None:
    class Never(LookingUp):
        """It sees no beard at all, so it is right about half of the classes there."""

        def logits(self, images: Tensor) -> dict[str, Tensor]:
            found = super().logits(images)
            return {**found, "Beard": certain([0] * len(images))}

    options = Evaluation(protocol="classifier", held_out="train")
    context = Context(
        index,
        options,
        0,
        classifier.GOAL,
        torch.device("cpu"),
    )
    shards = Shards(index, "train")
    assert classifier.quick(LookingUp(shards), context) == {"balanced_accuracy": 1}
    assert classifier.quick(Never(shards), context) == {"balanced_accuracy": pytest.approx(0.75)}
    assert classifier.goal(None, options).best([0.5, 0.9]) == 0.9
    with pytest.raises(
        UserError, match=r"sweep\.goal=kd_lite0: classifiers are searched by balanced_accuracy"
    ):
        classifier.goal("kd_lite0", options)


def test_a_classifier_sees_a_split_chunk_by_chunk(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = Shards(index, "train")
    sizes = []

    class Remembering(LookingUp):
        def logits(self, images: Tensor) -> dict[str, Tensor]:
            sizes.append(len(images))
            return super().logits(images)

    whole = LookingUp(shards).logits(pixels.to_model(shards.images()))
    monkeypatch.setattr(loader, "CHUNK", 20)
    found = features.logits(Remembering(shards), shards)
    assert sizes == [20, 20, 5]
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    some = np.array([44, 0, 7])
    assert torch.equal(
        features.logits(LookingUp(shards), shards, some)["Glasses"], whole["Glasses"][some]
    )


def test_the_classifier_protocol_gives_counts_only_when_the_split_has_too_few_people(
    index: Index, tmp_path: Path
) -> None:
    model = LookingUp(Shards(index, "test"))
    context = Context(
        index, Evaluation(protocol="classifier"), 0, classifier.GOAL, torch.device("cpu")
    )
    found = classifier.full(model, context, tmp_path)["labels"]
    assert found["Glasses"]["people"] == [3, 3]
    assert found["Glasses"]["images"] == [9, 6]
    assert not any(fact["scored"] for fact in found.values())
