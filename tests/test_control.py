"""Control: what a walk along a dimension changes, told apart from what the dimension goes with."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.evaluation.extractors import Looked
from facefactory.interpret import Space, control, pictures, witnesses
from facefactory.interpret.control import Cell
from facefactory.interpret.witnesses import Witness, Witnesses
from facefactory.metrics import Array
from facefactory.results import Contrast, Effect, Estimate

FACES = 300
BRIGHT = Contrast("Bright", "", "auroc", 0.5, FACES)
LEFT = Contrast("Left", "", "auroc", 0.5, FACES)
SHADE = Contrast("shade", "", "spearman", 1.0, FACES)
CONTRASTS = [BRIGHT, LEFT, SHADE]


def drawn(codes: Tensor) -> Tensor:
    """3: the brightness of a square in the middle; 2: of the left column, and the square's a little; 1 a lone pixel; 4, 5: nothing."""
    images = torch.zeros(len(codes), 1, 8, 8)
    square = codes[:, 3] / 4 + codes[:, 2] / 20
    images[:, 0, 2:6, 2:6] = square[:, None, None]
    images[:, 0, :, 0] = codes[:, 2, None] / 4
    images[:, 0, 7, 7] = codes[:, 1] / 4
    return images.clamp(-1, 1)


def space_of(dimensions: int = 6) -> Space:
    """Dimensions 3 and 5 are the same but for noise: both go with how bright the square is."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(FACES, dimensions))
    codes[:, 5] = codes[:, 3] + 0.1 * rng.normal(size=FACES)
    images = ((drawn(torch.from_numpy(codes)) + 1) * 127.5).round().to(torch.uint8)
    images = images.permute(0, 2, 3, 1)
    return Space(
        codes=codes,
        labels={"Bright": (codes[:, 3] > 0).astype(float)},
        groups=np.arange(FACES),
        scale=np.ones(dimensions),
        start=torch.zeros(dimensions),
        activity=None,
        method="made up",
        faces=lambda rows: images[torch.from_numpy(rows)],
        decode=drawn,
    )


def ask(images: Tensor) -> Array:
    """Chances that the square and the left column are bright; the square's brightness, -1…1."""
    levels = images[..., 0].double().numpy() / 127.5 - 1
    square = levels[:, 2:6, 2:6].mean((1, 2))
    left = levels[:, :, 0].mean(1)
    return np.stack([1 / (1 + np.exp(-4 * square)), 1 / (1 + np.exp(-4 * left)), square], 1)


def sure(value: float = 0.95) -> Estimate:
    return Estimate(value, value - 0.05, min(1.0, value + 0.05))


def witness(**changes: Any) -> Witness:
    found = Witness(
        ask,
        [sure()] * 3,
        np.array([0.5, 0.5, 0.0]),
        np.array([0.3, 0.3, 0.5]),
    )
    return replace(found, **changes)


def witnesses_of(**changes: Any) -> Witnesses:
    def looked(images: Tensor) -> Array:
        return images.flatten(1).double().numpy()

    found = Witnesses(CONTRASTS, witness(), witness(), looked)
    return replace(found, **changes)


def cell(dimension: int, contrast: Contrast = BRIGHT, value: float = 0.9) -> Cell:
    return Cell(dimension, contrast, Effect(value, value - 0.05, value + 0.05, 1e-9, 0.3))


def walked(*cells: Cell, told: Witnesses | None = None, space: Space | None = None) -> Any:
    return control.controls(
        space or space_of(), cells, told or witnesses_of(), {"shade": "Bright"}
    )


def test_the_dimension_that_draws_it_controls_and_the_one_that_only_goes_with_it_does_not() -> (
    None
):
    draws, disconnected = walked(cell(3), cell(5))
    assert draws.holds
    assert draws.absent == ""
    assert not disconnected.holds
    assert disconnected.absent == "the judge sees no change"
    assert (disconnected.slope.low, disconnected.slope.value, disconnected.slope.high) == (0, 0, 0)
    assert len(set(disconnected.judged)) == 1
    assert disconnected.identity == 1


def test_the_figures_of_a_walk_are_those_of_what_is_drawn() -> None:
    (found,) = walked(cell(3, SHADE))
    # the square goes from -.75 to .75 in 8 bits, shifted by a twentieth of code 2, which is any
    assert found.slope.value == pytest.approx(0.25, abs=0.002)
    assert found.slope.low <= found.slope.value <= found.slope.high
    assert found.deviations == pytest.approx(np.linspace(-3, 3, 9).tolist())
    assert found.judged[-1] - found.judged[0] == pytest.approx(1.5, abs=0.01)
    assert found.judged == sorted(found.judged)
    assert found.effectiveness == 1
    assert found.composition == 0  # a face's code draws it again
    assert found.others.keys() == {"Left"}  # Bright is the same attribute
    assert found.minimality == 0
    assert found.embedded == found.slope
    assert found.reliability == sure()
    assert found.holds


def test_identity_is_how_much_nearer_a_walked_face_is_to_itself_than_to_another() -> None:
    far, near = walked(cell(3), cell(1))
    # two faces differ by 2 in each pixel's square; walks leave by 9 + 1 squared deviations of theirs
    rows = control.walkers(np.arange(FACES), control.FACES)
    codes = space_of().codes[rows]
    levels = np.round((drawn(torch.from_numpy(codes)).flatten(1).numpy() + 1) * 127.5)
    unlike = 2 * levels.var(0).sum()
    ends = [np.round((end / 4 + 1) * 127.5) for end in (-3, 3)]
    moved = np.mean([np.square(levels[:, 63] - end).mean() for end in ends])
    assert near.identity == pytest.approx(1 - moved / unlike, abs=0.005)
    assert (
        far.identity < 0 < near.identity
    )  # at three deviations a square is not the person's any more


def test_side_effects_on_other_labels_are_no_control() -> None:
    (found,) = walked(cell(2))
    assert not found.holds
    assert found.absent.startswith("Left changes")
    assert found.minimality > 2
    (other,) = walked(cell(2, LEFT))
    assert other.holds
    assert other.minimality < 0.5
    # nobody can tell whether Left changes
    blind = witness(trust=[sure(), sure(0.6), sure()])
    (alone,) = walked(cell(2), told=witnesses_of(judge=blind))
    assert alone.others == {}
    assert alone.absent == "no other label can be told, and nobody knows what else changes"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trust": [sure(0.6), sure(), sure()]}, "cannot tell it on people whom it never saw"),
        ({"trust": [None, sure(), sure()]}, "cannot tell it on people whom it never saw"),
        (
            {"ask": lambda images: np.abs(ask(images) - 0.5)},
            "up and down|sees no change",
        ),
        ({"ask": lambda images: ask(images) / 100}, "less than 0.5 deviations"),
    ],
)
def test_a_judge_that_cannot_tell_names_nothing(changes: dict[str, Any], words: str) -> None:
    (found,) = walked(cell(3), told=witnesses_of(judge=witness(**changes)))
    assert not found.holds
    assert any(word in found.absent for word in words.split("|"))


def test_the_other_network_has_to_see_it_too() -> None:
    def sees_nothing(images: Tensor) -> Array:
        return np.random.default_rng(1).normal(size=(len(images), 3))

    deaf = witness(ask=sees_nothing)
    (found,) = walked(cell(3), told=witnesses_of(network=deaf))
    assert found.absent == "the other network does not see it"
    unable = replace(deaf, trust=[sure(0.55)] * 3)
    (found,) = walked(cell(3), told=witnesses_of(network=unable))
    assert found.absent == "the other network cannot tell it"
    (found,) = walked(cell(3), told=witnesses_of(network=None))
    assert found.absent == "no other network is here to be asked"
    assert found.embedded is None


def test_a_side_effect_that_the_judge_alone_sees_is_its_own_error() -> None:
    def confuses(images: Tensor) -> Array:
        answers = ask(images)
        answers[:, 1] = answers[:, 0]
        return answers

    judge = witness(ask=confuses)
    (found,) = walked(cell(3), told=witnesses_of(judge=judge))
    assert found.holds
    assert found.others["Left"].value > 0.1
    both = witnesses_of(judge=judge, network=witness(ask=confuses))
    (found,) = walked(cell(3), told=both)
    assert found.absent == "Left changes 100% as much"


def test_a_walk_the_other_way_than_the_codes_is_no_control() -> None:
    (found,) = walked(cell(3, value=0.1))
    assert found.absent == "walking changes it the other way than the codes go with it"


def test_parts_of_the_cells_are_the_same_bits_as_all_of_them() -> None:
    cells = [cell(3), cell(2, LEFT), cell(5), cell(3, SHADE)]
    whole = walked(*cells)
    parts = [walked(one)[0] for one in reversed(cells)]
    assert whole == parts[::-1]
    assert walked() == []


def test_faces_of_as_many_people_as_there_are_walk() -> None:
    groups = np.repeat(np.arange(10), 7)
    rows = control.walkers(groups, 25)
    assert len(set(rows.tolist())) == 25
    counts = np.bincount(groups[rows], minlength=10)
    assert set(counts.tolist()) == {2, 3}
    assert (np.bincount(groups[rows[:10]], minlength=10) == 1).all()
    few = control.walkers(np.arange(5), 64)
    assert sorted(few.tolist()) == list(range(5))


def test_intervals_are_over_people_not_over_faces() -> None:
    rng = np.random.default_rng(0)
    answers = rng.normal(size=(8, 1, 1)) * control.DOSES[None, :, None]
    alone = control.slopes(answers, np.arange(8))[0]
    repeated = control.slopes(np.repeat(answers, 6, 0), np.repeat(np.arange(8), 6))[0]
    assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high))


# -- witnesses -------------------------------------------------------------------------


def test_linear_answers_find_what_is_linear_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(400, 30)) + 5
    truths = np.stack([seen @ rng.normal(size=30), rng.normal(size=400), seen[:, 0]], 1)
    truths[::3, 2] = np.nan  # not known of some
    answers = witnesses.fitted(seen[:200], truths[:200])(seen[200:])
    assert np.corrcoef(answers[:, 0], truths[200:, 0])[0, 1] > 0.99
    assert np.corrcoef(answers[:, 2], seen[200:, 0])[0, 1] > 0.99
    assert answers[:, 1].std() < 0.3  # shrunk, for it is chance
    few = witnesses.fitted(seen[:200], np.where(np.arange(200)[:, None] < 2, truths[:200], np.nan))
    assert np.unique(few(seen[200:]), axis=0).shape == (1, 3)


def test_linear_answers_from_fewer_faces_than_features_are_finite() -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(30, 100))
    answers = witnesses.fitted(seen, seen[:, :2])(seen)
    assert np.isfinite(answers).all()


def test_what_an_answer_is_worth_is_measured_by_person() -> None:
    rng = np.random.default_rng(0)
    truths = np.repeat([0.0, 1.0] * 20, 5)
    people = np.repeat(np.arange(40), 5)
    answers = np.repeat(truths[::5] + rng.normal(size=40), 5)
    alone = witnesses.trust(
        answers[::5],
        truths[::5],
        people[::5],
        "auroc",
    )
    repeated = witnesses.trust(answers, truths, people, "auroc")
    assert alone is not None
    assert repeated is not None
    assert repeated.value == pytest.approx(alone.value)
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.3)
    assert witnesses.trust(truths, truths, people, "auroc").value == 1  # type: ignore[union-attr]
    assert witnesses.trust(truths[:20], truths[:20], people[:20], "auroc") is None  # 4 people
    assert witnesses.trust(-truths, truths, people, "spearman").value == pytest.approx(-1)  # type: ignore[union-attr]
    assert witnesses.trust(truths * np.nan, truths * np.nan, people, "auroc") is None


class GlassesJudge:
    """Told by the pixels of the real faces, and so always right of them."""

    def __init__(self, index: Index) -> None:
        everyone = Shards(index, list(index.content.splits))
        glasses = everyone.table["Glasses"].to_numpy()
        self.known = {
            image.numpy().tobytes(): int(has)
            for image, has in zip(everyone.images(), glasses, strict=True)
        }

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        from facefactory.data.sets import pixels

        has = torch.tensor(
            [self.known[image.numpy().tobytes()] for image in pixels.to_uint8(images)]
        )
        return {
            "Glasses": torch.stack([-6.0 * has, 6.0 * has], 1),
            "Beard": torch.zeros(len(images), 2),
        }


class PixelEye:
    """Features are the pixels."""

    batch = 16
    weights = "0" * 8
    resize = "none"

    def __call__(self, images: Tensor) -> Looked:
        return Looked(images.flatten(1).float())


def test_witnesses_are_tried_on_faces_that_were_held_out(index: Index) -> None:
    contrasts = [
        Contrast("Glasses", "", "auroc", 0.4, 60),
        Contrast("Beard", "", "auroc", 0.5, 60),
    ]
    called = witnesses.called(index, GlassesJudge(index), contrasts, PixelEye(), {})
    held_out = [name for name in index.content.splits if name != "train"]
    others = Shards(index, held_out)
    assert called.judge.ask(others.images()).shape == (len(others), 2)
    assert (
        called.judge.ask(others.images())[:, 0].round().tolist()
        == others.table["Glasses"].tolist()
    )
    people = len(np.unique(others.table["Person"]))
    assert people < 8
    assert called.judge.trust == [None, None]  # three people tell nothing
    assert not called.trusts(called.judge, 0)


def test_where_few_people_are_held_out_folds_of_the_others_tell_what_an_answer_is_worth(
    index: Index,
) -> None:
    contrasts = [
        Contrast("Glasses", "", "auroc", 0.4, 60),
        Contrast("Beard", "", "auroc", 0.5, 60),
    ]
    facts = {
        "Glasses": {"scored": True, "auroc": 0.9, "auroc_interval": [0.8, 1.0]},
        "Beard": {"scored": False, "reason": "too few"},
        "Person": {"scored": True, "auroc": 0.9, "auroc_interval": [0.8, 1.0]},
    }
    folded = witnesses.out_of_fold(facts, index.content.labels)
    assert folded == {"Glasses": Estimate(0.9, 0.8, 1.0)}
    called = witnesses.called(index, GlassesJudge(index), contrasts, PixelEye(), folded)
    assert called.judge.trust == [folded["Glasses"], None]
    assert called.trusts(called.judge, 0)

    # a linear probe of pixels, fitted without the people that it is tried on; of beards 9 people tell, 5 and 4
    assert called.network is not None
    glasses, beard = called.network.trust
    assert glasses is not None
    assert glasses.low > 0.7
    assert beard is None


def test_answers_are_not_tried_on_people_whom_they_were_fitted_to() -> None:
    """Features name the person, and each person's label is a toss: nothing can be told of strangers."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 5)
    seen = np.eye(40)[people]
    truths = rng.integers(0, 2, 40).astype(float)[people][:, None]
    sample = SimpleNamespace(people=people, truths=truths)
    contrasts = [Contrast("A", "", "auroc", 0.5, 200)]
    (worth,) = witnesses._crossed(seen, sample, contrasts)  # type: ignore[arg-type]
    assert worth.low < 0.5  # type: ignore[union-attr]
    own = witnesses.fitted(seen, truths)(seen)[:, 0]
    assert witnesses.trust(own, truths[:, 0], people, "auroc").low > 0.9  # type: ignore[union-attr]


# -- pictures --------------------------------------------------------------------------


def test_sheets_show_walks_differences_ends_and_ways_between_classes(tmp_path: Any) -> None:
    from PIL import Image

    space = space_of()
    sheets = pictures.written(
        space, [3, 5], {"Bright": ("0", "1"), "Gone": ("0", "1")}, tmp_path, "-toy"
    )
    titles = [sheet.title for sheet in sheets]
    assert titles == ["quantiles", "difference", "lowest faces", "highest faces", "between"]
    for sheet in sheets:
        with Image.open(tmp_path / sheet.file) as picture:
            size = (8 * len(sheet.columns), 8 * sheet.lines * len(sheet.blocks))
            assert picture.size == size
    assert [sheet.blocks for sheet in sheets] == [[3, 5]] * 4 + [["Bright: 0 → 1"]]

    # block 3: the middle goes through the codes' quantiles, whoever the face is; block 5: nothing moves
    tiles = np.array(Image.open(tmp_path / sheets[0].file)).reshape(2, 4, 8, 9, 8)
    shares = np.quantile(space.codes[:, 3], pictures.QUANTILES) / 4
    middles = tiles[0, :, 4, :, 4] / 127.5 - 1
    np.testing.assert_allclose(
        np.diff(middles, axis=1), np.tile(np.diff(shares), (4, 1)), atol=0.02
    )
    assert (tiles[1] == tiles[1][:, :, :1]).all()

    heat = np.array(Image.open(tmp_path / sheets[1].file)).reshape(2, 8, 8, 3)
    assert (heat[0, 2:6, 2:6] == 255).all()
    assert heat[0].sum() == 255 * 3 * 16
    assert heat[1].sum() == 0


def test_the_faces_at_the_ends_are_the_outermost_ones() -> None:
    space = space_of()
    low, high = pictures.ends(space, [3, 0])
    assert low.shape == high.shape == (2, 8)
    assert space.codes[low[0, 0], 3] == space.codes[:, 3].min()
    assert space.codes[high[1, 0], 0] == space.codes[:, 0].max()
    assert (np.diff(space.codes[high[0], 3]) <= 0).all()


def test_between_two_classes_a_face_goes_by_the_difference_of_their_means() -> None:
    space = space_of()
    (way,) = pictures.arithmetic(space, {"Bright": ("0", "1")}).values()
    tiles = way.view(4, 9, 8, 8).numpy() / 127.5 - 1
    bright = space.labels["Bright"] == 1
    step = space.codes[bright].mean(0) - space.codes[~bright].mean(0)
    moved = tiles[:, -1, 4, 4] - tiles[:, 0, 4, 4]
    np.testing.assert_allclose(
        moved,
        step[3] / 4 + step[2] / 20,
        atol=0.02,
    )
    assert pictures.arithmetic(space, {"Bright": ("0",)}) == {}
