"""Scores see what eyes see: the feature network, statistics that merge, blind spots, planted models, what may rank."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from conftest import Faces as Files
from test_metrics_sanity import PURPOSES
from torch import Tensor
from torch.nn import functional as F

from facefactory import UserError, registry, rundir
from facefactory.data import Pack
from facefactory.data.packing import pack, recipes
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.data.sources.drawn import Options, draw, factors
from facefactory.evaluation import (
    Evaluation,
    blindness,
    extractors,
    features,
    references,
    scoring,
    statistics,
)
from facefactory.evaluation.distortions import Faces
from facefactory.evaluation.extractors import (
    Judge,
    Looked,
    lite0,
    mobilenet_v2,
)
from facefactory.evaluation.subjects import Context, generator
from facefactory.facts import Size
from facefactory.metrics import moments
from facefactory.metrics.features import kernel_distance
from facefactory.results import Goal, Sight, kendall_tau, rank_correlation
from facefactory.weights import efficientnet_lite

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def eye() -> lite0.Lite0:
    return lite0.load(Size(32, 32), CPU, None)


@pytest.fixture(scope="module")
def orl32(orl: Files, tmp_path_factory: pytest.TempPathFactory) -> Index:
    plan = recipes.plan(Pack(recipe=str(orl.recipe), resolution=32, color="gray"))
    return pack.pack(plan, tmp_path_factory.mktemp("orl32"))


# -- the network -----------------------------------------------------------------------------------


def test_the_published_weights_fit_the_published_architecture() -> None:
    network = efficientnet_lite.Lite0()
    path = lite0.WEIGHTS.find()
    assert path is not None
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)  # all keys match
    assert sum(weights.numel() for weights in network.parameters()) == 4_652_008


def test_folded_normalisations_change_no_feature(eye: lite0.Lite0) -> None:
    plain = efficientnet_lite.Lite0()
    plain.load_state_dict(torch.load(str(lite0.WEIGHTS.find()), weights_only=True))
    images = torch.randn(
        4,
        3,
        64,
        64,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.inference_mode():
        wanted = plain.eval()(images)
        found = eye.network(images)
    assert wanted.std(0).mean() > 0.05
    torch.testing.assert_close(
        found,
        wanted,
        rtol=0,
        atol=1e-4,
    )
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in eye.network.modules())


@pytest.mark.parametrize("side", [63, 64, 65, 66])
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [
        (3, 1),
        (3, 2),
        (5, 1),
        (5, 2),
    ],
)
def test_convolutions_pad_as_tensorflow_does(side: int, kernel: int, stride: int) -> None:
    layer = efficientnet_lite.Convolution(1, 1, kernel, stride)
    with torch.no_grad():
        layer.weight.fill_(1)
        sums = layer(torch.ones(1, 1, side, side))
    assert sums.shape[2] == -(-side // stride)
    missing = max(0, (sums.shape[2] - 1) * stride + kernel - side)  # the last side gets one more
    assert sums[0, 0, 0, 0] == (kernel - missing // 2) ** 2
    assert sums[0, 0, -1, -1] == (kernel - (missing - missing // 2)) ** 2


def test_features_are_finite_and_the_same_whatever_the_chunks(
    orl32: Index, eye: lite0.Lite0
) -> None:
    images = Shards(orl32, "test").images()
    whole = features.look(eye, images)
    assert whole.features.shape == (80, 1280)
    assert torch.isfinite(whole.features).all()
    assert whole.logits is not None
    assert whole.logits.shape == (80, 1000)
    for size in (1, 7, 33):
        parts = [features.look(eye, part).features for part in images.split(size)]
        assert torch.equal(torch.cat(parts), whole.features), size
    turned = features.look(eye, images.flip(0)).features
    assert torch.equal(turned.flip(0), whole.features)


@pytest.mark.parametrize(
    ("side", "seen"),
    [
        (16, 64),
        (64, 128),
        (65, 160),
        (128, 224),
        (1024, 224),
    ],
)
def test_small_images_are_enlarged_and_the_rule_is_in_the_protocol(side: int, seen: int) -> None:
    eye = lite0.Lite0(Size(side, side), CPU, str(lite0.WEIGHTS.find()))
    assert eye.resize == f"to {seen}x{seen}, antialiased bilinear"


def test_a_grain_that_is_hardly_seen_costs_less_than_a_face_that_is_gone() -> None:
    rows = factors(Options(), 0, 160).to_dict("records")
    faces = torch.from_numpy(np.stack([np.asarray(draw(row, 64)) for row in rows]))
    real, others = faces.split(80)
    eye = lite0.Lite0(Size(64, 64), CPU, str(lite0.WEIGHTS.find()))

    # each fourth pixel brighter by 20 of 255; means of 9 x 9 pixels
    grain = torch.full((1, 64, 64, 1), -10)
    grain[:, 1::2, 1::2] = 10
    grainy = (others + grain).clamp(0, 255).to(torch.uint8)
    maps = others.permute(0, 3, 1, 2).float()
    smeared = F.avg_pool2d(F.pad(maps, (4, 4, 4, 4), mode="replicate"), 9, 1)
    gone = smeared.permute(0, 2, 3, 1).to(torch.uint8)

    known = features.look(eye, real).features.double().numpy()
    distances = []
    for shown in (grainy, gone):
        seen = features.look(eye, shown).features.double().numpy()
        distances.append(kernel_distance.score(known, seen)["kd"])
    assert distances[0] < distances[1]


def test_gray_and_colour_images_that_look_alike_have_the_same_features(eye: lite0.Lite0) -> None:
    gray = torch.randint(
        0, 256, (2, 20, 20, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    both = [features.look(eye, images).features for images in (gray, gray.expand(-1, -1, -1, 3))]
    torch.testing.assert_close(
        *both,
        rtol=0,
        atol=1e-5,
    )


def test_mobilenet_v2_sees_what_torchvision_shows_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = (
        torchvision.models.mobilenet_v2().eval()
    )  # random: the published weights are staged nowhere in tests
    torch.save(network.state_dict(), tmp_path / mobilenet_v2.WEIGHTS.file)
    monkeypatch.setenv("FACEFACTORY_WEIGHTS", str(tmp_path))
    digest = rundir.sha256(tmp_path / mobilenet_v2.WEIGHTS.file)
    own = dataclasses.replace(mobilenet_v2.WEIGHTS, sha256=digest)
    monkeypatch.setattr(mobilenet_v2, "WEIGHTS", own)
    images = torch.randint(0, 256, (3, 224, 224, 3), dtype=torch.uint8)
    shown = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms(
        crop_size=224, resize_size=224
    )(images.permute(0, 3, 1, 2))
    with torch.inference_mode():
        wanted = network(shown)
    found = features.look(mobilenet_v2.load(Size(224, 224), CPU, None), images)
    assert found.features.shape == (3, 1280)
    assert found.logits is not None
    torch.testing.assert_close(found.logits, wanted, rtol=1e-4, atol=1e-5)


# -- statistics that merge -------------------------------------------------------------------------


def looked(count: int, columns: int = 12) -> Looked:
    rows = torch.randn(count, columns, generator=torch.Generator().manual_seed(0)) * 3 + 5
    return Looked(rows, rows[:, :4])


@pytest.mark.parametrize("name", registry.names("evaluation.statistics"))
def test_one_process_two_ranks_and_seven_tasks_keep_the_same(name: str) -> None:
    seen = looked(101)
    positions = np.random.default_rng(0).permutation(101)
    kept = []
    for count in (1, 2, 7):
        parts = []
        for rows in np.array_split(np.arange(101), count):
            one = statistics.make(name)
            one.add(Looked(seen.features[rows], seen.logits[rows]), positions[rows])  # type: ignore[index]
            stored = statistics.make(name)
            stored.load(one.state())  # as from a file
            parts.append({name: stored})
        kept.append(features.merged(reversed(parts))[name].value())

    # however many there were
    for other in kept[1:]:
        if name == "moments":
            assert other.count == kept[0].count
            np.testing.assert_allclose(
                other.mean,
                kept[0].mean,
                rtol=1e-8,
            )
            np.testing.assert_allclose(
                other.covariance,
                kept[0].covariance,
                rtol=1e-8,
                atol=1e-8,
            )
        else:
            np.testing.assert_array_equal(other, kept[0])
    if name == "moments":
        direct = moments(seen.features.double().numpy())
        np.testing.assert_allclose(
            kept[0].covariance,
            direct.covariance,
            rtol=1e-8,
            atol=1e-8,
        )
    else:
        rows = seen.features if name == "sample" else seen.logits
        np.testing.assert_array_equal(kept[0][positions], rows.double().numpy())  # type: ignore[union-attr]


def test_scores_of_one_process_two_ranks_and_seven_tasks_are_the_same() -> None:
    def kept(seen: Looked, positions: Any, count: int) -> features.Kept:
        parts: list[features.Kept] = []
        part_of = np.arange(len(positions)) % count
        features.sort_in(parts, seen, positions, part_of, scoring.wanted())
        return features.merged(reversed(parts))

    rng = np.random.default_rng(0)
    sets = []
    for seed, count in enumerate((1500, 1300, 1100)):
        rows = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)) + 30
        sets.append((Looked(rows, rows[:, :5] - 30), rng.permutation(count)))
    values: list[dict[str, float]] = []
    for count in (1, 2, 7):
        real, held_out, fake = (kept(*one, count) for one in sets)
        found: dict[str, float] = {}
        for file in scoring.files():
            found |= scoring.score(file, real, fake, held_out)
        values.append(found)
    of_moments = {"fd"}
    assert values[0].keys() == set(PURPOSES)
    for other in values[1:]:
        for name, value in values[0].items():
            if name in of_moments:
                assert other[name] == pytest.approx(value, rel=1e-8), name
            else:
                assert other[name] == value, name


def test_parts_that_have_images_in_common_are_refused() -> None:
    parts = [{"sample": statistics.make("sample")} for _ in range(2)]
    for part in parts:
        part["sample"].add(looked(3), np.arange(3))
    with pytest.raises(ValueError, match="images in common"):
        features.merged(parts)["sample"].value()


# -- the reference, once a set ---------------------------------------------------------------------


class Pixels:
    """Pixels as features, which counts the batches that it sees."""

    batch = 8
    weights = "00000000"
    resize = "none"

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> Looked:
        self.seen += 1
        return Looked(images.flatten(1).float() / 255)


def context_of(
    index: Index, goal: Goal = generator.GOAL, judge: Judge | None = None, **options: Any
) -> Context:
    return Context(
        index,
        Evaluation(**options),
        0,
        goal,
        CPU,
        judge,
        "0.5",
    )


def own_copy(index: Index, folder: Path) -> Index:
    """The same set with a folder of its own for what is computed about it."""
    for path in index.folder.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return Index(folder, index.content)


def test_the_reference_is_computed_once_and_a_damaged_file_is_made_anew(
    index: Index, tmp_path: Path
) -> None:
    own = own_copy(index, tmp_path)
    eye = Pixels()
    protocol = generator.protocol("judge", eye, context_of(own), 0)
    first = references.of(own, protocol, eye, ["sample", "moments"])
    looks = eye.seen
    again = references.of(
        own, dataclasses.replace(protocol, fakes=99, seed=5), eye, ["sample", "moments"]
    )
    assert eye.seen == looks > 0
    np.testing.assert_array_equal(first["sample"].value(), again["sample"].value())
    np.testing.assert_array_equal(first["moments"].value().mean, again["moments"].value().mean)
    (path,) = (tmp_path / "statistics").glob("*-sample.npz")
    path.write_bytes(path.read_bytes()[:100])
    mended = references.of(own, protocol, eye, ["sample"])
    assert eye.seen > looks
    np.testing.assert_array_equal(mended["sample"].value(), first["sample"].value())
    unlike = references.of(own, dataclasses.replace(protocol, reals=20), eye, ["sample"])
    assert len(unlike["sample"].value()) == 20


def test_where_nothing_can_be_written_the_reference_is_computed_all_the_same(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(references, "folder", lambda index: tmp_path / "file" / "statistics")
    eye = Pixels()
    protocol = generator.protocol("judge", eye, context_of(index), 0)
    assert len(references.of(index, protocol, eye, ["sample"])["sample"].value()) == 45


TASK = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_scores import Pixels, context_of
from facefactory.data.sets import index
from facefactory.evaluation import references
from facefactory.evaluation.subjects import generator
own = index.read(Path(sys.argv[1]))
eye = Pixels()
kept = references.of(own, generator.protocol("judge", eye, context_of(own), 0), eye, ["sample"])
print(eye.seen, kept["sample"].value().sum())
"""


def test_tasks_that_come_at_once_leave_the_work_to_one_of_them(
    index: Index, tmp_path: Path
) -> None:
    own_copy(index, tmp_path)
    code = TASK.format(tests=str(Path(__file__).parent))
    call = [sys.executable, "-c", code, str(tmp_path)]
    tasks = [subprocess.Popen(call, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [task.communicate(timeout=200)[0].split() for task in tasks]
    assert sorted(int(seen) for seen, _ in told) == [0, 6]
    assert len({total for _, total in told}) == 1


# -- distortions and blind spots -------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("evaluation.distortions"))
def test_a_distortion_has_six_severities_each_another_picture_and_leaves_the_faces_alone(
    name: str, orl32: Index
) -> None:
    module = registry.module("evaluation.distortions", name)
    shards = Shards(orl32, "train")
    images = shards.images(np.arange(0, 320, 2))
    people = shards.labels(["Subject"])["Subject"].numpy()[::2]
    faces = Faces(
        images[::4],
        images,
        people,
        True,
        shards.images(np.arange(1, 320, 2)),
    )
    before = images.clone()
    spoilt = [module.spoil(faces, amount) for amount in module.AMOUNTS]
    assert len(spoilt) == 6 == len(set(module.AMOUNTS))
    assert sorted(module.AMOUNTS) == list(module.AMOUNTS)
    assert all(one.dtype == torch.uint8 and one.shape[1:] == images.shape[1:] for one in spoilt)
    assert torch.equal(images, before)
    if name != "people_left_out":
        changes = [float((one.float() - faces.images.float()).abs().mean()) for one in spoilt]
        assert changes[0] > 0
        assert rank_correlation(changes) >= 0.9
    assert torch.equal(module.spoil(faces, module.AMOUNTS[2]), spoilt[2])


def test_rank_correlations_and_kendalls_tau_have_their_known_values() -> None:
    assert rank_correlation([1, 2, 3, 4, 5, 6]) == pytest.approx(1)
    assert rank_correlation([1, 2, 4, 3, 5, 6]) == pytest.approx(1 - 6 * 2 / 210)
    assert rank_correlation([6, 5, 4, 3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([2, 2, 2]) == 0
    assert kendall_tau([1, 2, 3], [10, 30, 20]) == pytest.approx(1 / 3)
    assert kendall_tau([1, 2], [2, 1]) == -1
    assert kendall_tau([1, 2], [3, 3]) == 1


def sight_of(
    values: list[float], floor: float, better: Any = "lower", chance: float = 0.1
) -> Sight:
    curves = {"kd": {"blur": values}}
    return Sight(
        features="lite0",
        weights="0" * 8,
        images=64,
        reference=160,
        better={"kd": better},
        floor={"kd": floor},
        marks={},
        curves=curves,
        chance={"kd": chance},
    )


def test_a_score_sees_what_makes_it_worse_from_the_floor_on_and_by_more_than_chance() -> None:
    rising = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert sight_of(rising, 0.5).valid("kd") == ("blur",)
    assert sight_of(rising, 0.5).blind("kd") == ()
    assert sight_of(rising, 1.5).valid("kd") == ("blur",)  # the gentlest may look like none
    assert sight_of(rising, 2.5).blind("kd") == ("blur",)  # two look better than real faces
    assert sight_of(rising[::-1], 0.5).blind("kd") == ("blur",)
    assert sight_of([1.0, 2.0, 3.0, 9.0, 8.0, 7.0], 0.5).blind("kd") == ("blur",)
    falling = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    assert sight_of(falling, 1.0, "higher").valid("kd") == ("blur",)
    saturated = [1.0, 1.0, 0.3, 0.0, 0.0, 0.0]
    assert sight_of(saturated, 1.0, "higher").valid("kd") == ("blur",)
    assert sight_of(rising, 0.5, chance=1.8).valid("kd") == ("blur",)
    assert sight_of(rising, 0.5, chance=1.9).blind("kd") == ("blur",)  # 5.5 is under 3 x 1.9


def test_halves_have_the_same_people_and_other_photographs() -> None:
    people = np.repeat(np.arange(7), 10)[np.random.default_rng(0).permutation(70)]
    first, second = blindness.halves(people)
    assert not set(first) & set(second)
    assert len(first) + len(second) == 70
    assert np.bincount(people[first]).tolist() == np.bincount(people[second]).tolist() == [5] * 7


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer spoilt faces, by one metric: a test has not all day."""
    monkeypatch.setattr(blindness, "SPOILT", 32)
    kept = {name: scoring.files()[name] for name in ("kernel_distance",)}
    monkeypatch.setattr(scoring, "files", lambda: kept)


def test_the_default_goal_sees_on_orl_what_everybody_sees_and_is_looked_at_once(
    orl32: Index, fewer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = generator.sight("lite0", context_of(orl32))
    assert set(blindness.NEEDED) <= set(seen.valid("kd"))
    assert {
        "jpeg",
        "resampling",
        "block_shuffling",
        "people_left_out",
        "one_face_repeated",
    } <= set(seen.valid("kd"))
    assert seen.blind("kd") == ("training_faces_copied",)  # which is what tests of copying are for
    marks = seen.marks["kd"]
    assert marks["floor"] < marks["new_people"] < marks["blur"] < marks["repeat"]
    assert marks["new_people"] < marks["ghosts"]
    assert marks["blur"] < marks["noise"]
    generator.admit(context_of(orl32))
    monkeypatch.setattr(blindness, "_look", lambda *_: pytest.fail("it was looked at before"))
    assert generator.sight("lite0", context_of(orl32)) == seen


def test_a_goal_that_is_blind_to_noise_is_refused_with_the_list(
    orl32: Index, fewer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mean(Pixels):
        """It sees how bright an image is, and nothing else."""

        def __call__(self, images: Tensor) -> Looked:
            return Looked(images.float().mean((1, 2, 3))[:, None] / 255)

    monkeypatch.setattr(extractors, "load", lambda *_: Mean())
    with pytest.raises(
        UserError, match=r"kd_lite0 is blind to blur.*noise.*in all.*another sweep\.goal"
    ):
        generator.admit(context_of(orl32))


# -- what may rank ---------------------------------------------------------------------------------


def test_scores_are_named_by_the_field_and_goals_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scoring.called("kd", "inception") == "kid"
    assert scoring.called("kd", "lite0") == "kd_lite0"
    assert scoring.goal("kd_lite0") == Goal("kd_lite0", "lower")
    assert scoring.goal("recall_lite0") == Goal("recall_lite0", "higher")
    with pytest.raises(UserError, match=r"kd_judge: .*'judge' never rank alone.*kd_lite0"):
        scoring.goal("kd_judge")
    with pytest.raises(UserError, match=r"no score 'kd_lite'.*Did you mean 'kd_lite0'"):
        scoring.goal("kd_lite")
    monkeypatch.setenv("FACEFACTORY_WEIGHTS", str(tmp_path))
    with pytest.raises(
        UserError, match=r"fid: the weights of 'inception' are not here; .* fetch inception-2015"
    ):
        scoring.goal("fid")
