"""Drawn faces: the same for everybody, with the shares and correlations asked for, and each factor where it belongs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from facefactory import UserError
from facefactory.data import Pack
from facefactory.data.packing import pack, recipes
from facefactory.data.sources import drawn
from facefactory.data.sources.drawn import (
    ATTRIBUTES,
    COLORED,
    FREE,
    Options,
    attributes,
    draw,
    factors,
    table,
)

MANY = 20_000
PLAIN: dict[str, Any] = dict.fromkeys(
    [*FREE, "fringe", "glasses_size", "beard", "makeup", "lipstick", "smile", "mouth_open"], 0.0
)
PLAIN |= {
    "hair_color": "brown",
    "glasses": "none",
    "background": "blue",
    "skin_tone": 0.3,
    "brow": 0.2,
}  # seen from the front


def pixels(resolution: int = 64, **changes: Any) -> np.ndarray:
    """PLAIN with changes, [H, W, 3] float."""
    return np.asarray(draw(PLAIN | changes, resolution), float)


def correlation(labels: pd.DataFrame, a: str, b: str) -> float:
    return float(np.corrcoef(labels[a], labels[b])[0, 1])


# -- factors and labels --------------------------------------------------------------------------------------------


def test_factors_are_pinned() -> None:
    found = factors(Options(), 0, 1000)
    assert found.loc[[0, 1, 999], ["hair_color", "glasses", "background"]].to_numpy().tolist() == [
        ["gray", "none", "blue"],
        ["gray", "none", "green"],
        ["red", "none", "blue"],
    ]
    pinned = [
        [24.058223724365234, 0.7585095167160034, 0.6830317974090576, 0.9343006014823914],
        [-18.825986862182617, -0.09453604370355606, 0.061950962990522385, 0.8205305933952332],
        [29.247356414794922, 0.09478195011615753, 0.5950700640678406, 0.0],
    ]
    assert (
        found.loc[[0, 1, 999], ["yaw", "smile", "skin_tone", "beard"]].to_numpy().tolist()
        == pinned
    )


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 997])
def test_a_face_does_not_depend_on_how_many_there_are(first: int) -> None:
    options = Options(correlate={"Smiling": ["Bangs", 0.3]}, noise=0.1)
    pd.testing.assert_frame_equal(
        factors(options, 0, 1003).iloc[first : first + 5], factors(options, first, 5)
    )
    few, many = (table(Options(images=n, noise=0.1)) for n in (10, 1000))
    pd.testing.assert_frame_equal(few, many.iloc[:10])


def test_another_seed_draws_other_faces() -> None:
    one = factors(Options(seed=1), 0, 100)
    other = factors(Options(seed=2), 0, 100)
    assert (one["yaw"] != other["yaw"]).all()
    assert (one["hair_color"] != other["hair_color"]).any()
    largest = factors(Options(seed=2**63 - 1), 10**8 - 1, 1)
    assert abs(float(largest["yaw"].iloc[0])) <= 40


def test_factors_are_uniform_in_their_range_and_independent() -> None:
    found = factors(Options(), 0, MANY)
    for name, most in FREE.items():
        assert found[name].abs().max() <= most
        assert found[name].std() == pytest.approx(most / 3**0.5, rel=0.03)
    off_diagonal = found[list(FREE)].corr().to_numpy()[~np.eye(len(FREE), dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / MANY**0.5
    for _, factor, without, within in ATTRIBUTES.values():
        there = found[factor].between(*np.float32(within)) | found[factor].between(
            *np.float32(without)
        )
        assert there.all()


def test_shares_are_those_asked_for() -> None:
    asked = {"Blond_Hair": 0.3, "Eyeglasses": 0.6, "No_Beard": 1.0, "Bangs": 0.0}
    labels = table(Options(images=MANY, prevalence=asked))
    default = COLORED | {name: entry[0] for name, entry in ATTRIBUTES.items()}
    for name, share in (default | asked).items():
        assert labels[name].mean() == pytest.approx(
            share, abs=4 * (share * (1 - share) / MANY) ** 0.5
        )
    assert (labels["hair_color"] == "red").mean() == 0  # the four add up to 1
    dark = (labels["glasses"] == "dark").sum() / (labels["glasses"] != "none").sum()
    assert dark == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("phi", [-0.25, 0.4])
def test_a_planted_correlation_keeps_the_shares(phi: float) -> None:
    correlate = {"Smiling": ["Blond_Hair", phi], "Bushy_Eyebrows": ["Smiling", 0.5]}
    labels = table(Options(images=MANY, correlate=correlate))
    assert correlation(labels, "Smiling", "Blond_Hair") == pytest.approx(phi, abs=0.03)
    assert correlation(labels, "Smiling", "Bushy_Eyebrows") == pytest.approx(0.5, abs=0.03)
    assert correlation(labels, "Smiling", "Eyeglasses") == pytest.approx(0, abs=0.03)
    for name in ("Smiling", "Blond_Hair", "Bushy_Eyebrows"):
        assert labels[name].mean() == pytest.approx(
            table(Options(images=MANY))[name].mean(), abs=0.015
        )
    plain = table(Options(images=MANY))
    unplanted = [name for name in plain if name not in {*correlate, "smile", "brow"}]
    pd.testing.assert_frame_equal(labels[unplanted], plain[unplanted])


def test_noise_flips_its_share_of_labels_and_no_factor() -> None:
    true, noisy = (table(Options(images=MANY, noise=share)) for share in (0.0, 0.1))
    names = [*COLORED, *ATTRIBUTES]
    flipped = true[names] != noisy[names]
    assert flipped.mean().to_numpy() == pytest.approx(0.1, abs=0.01)
    assert np.abs(flipped.corr().to_numpy()[~np.eye(len(names), dtype=bool)]).max() < 5 / MANY**0.5
    pd.testing.assert_frame_equal(true.drop(columns=names), noisy.drop(columns=names))
    assert set(np.unique(noisy[names])) == {0, 1}
    pd.testing.assert_frame_equal(attributes(noisy), true[names])


def test_attributes_follow_a_factor_that_is_changed() -> None:
    rows = factors(Options(), 0, 200)
    for name, (_, factor, without, within) in ATTRIBUTES.items():
        if name == "Eyeglasses":
            factor, without, within = "glasses", ("none",), ("clear", "dark")  # type: ignore[assignment]
        for value, wanted in [(v, 0) for v in without] + [(v, 1) for v in within]:
            changed = attributes(rows.assign(**{factor: value}))
            assert (changed[name] == wanted).all()
            pd.testing.assert_frame_equal(
                changed.drop(columns=name), attributes(rows).drop(columns=name)
            )
    assert attributes(rows.assign(hair_color="red"))[list(COLORED)].to_numpy().sum() == 0


# -- pictures ------------------------------------------------------------------------------------------------------


def test_a_face_is_the_same_whenever_and_from_whatever_it_is_drawn() -> None:
    rows = factors(Options(), 0, 20)
    once = [draw(row, 32).tobytes() for row in rows.to_dict("records")]
    back = [draw(row, 32).tobytes() for row in reversed(rows.to_dict("records"))]
    assert once == back[::-1]
    assert len(set(once)) == 20
    series = [draw(row, 32).tobytes() for _, row in rows.iterrows()]
    found = drawn.find({"drawn": {"images": 20}}, None)
    items = [drawn.load(item, 32, {"drawn": {"images": 20}}).tobytes() for item in found.items]
    assert once == series == items


@pytest.mark.parametrize("resolution", [16, 17, 24, 32, 48, 64, 100, 128, 200, 256])
def test_every_size_shows_the_same_face(resolution: int) -> None:
    rows = factors(Options(), 0, 6).to_dict("records")
    images = [draw(row, resolution) for row in rows]
    assert {(image.mode, image.size) for image in images} == {("RGB", (resolution, resolution))}
    shrunk = [
        draw(row, 512).resize((resolution, resolution), Image.Resampling.BOX) for row in rows
    ]
    apart = [
        [np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() for b in shrunk]
        for a in images
    ]
    assert np.diag(apart).max() < 4 < 15 < (np.array(apart) + np.diag([np.inf] * 6)).min()


# where a change may show at 100 pixels: left, top, right, bottom
EYES = (20, 38, 80, 60)
BROWS = (25, 33, 75, 48)
MOUTH = (35, 60, 65, 84)
PLACES = {
    "Eyeglasses": (EYES, {"glasses": "clear"}),
    "sunglasses": (EYES, {"glasses": "dark"}),
    "Smiling": (MOUTH, {"smile": 0.8}),
    "Mouth_Slightly_Open": (MOUTH, {"mouth_open": 0.8}),
    "Wearing_Lipstick": (MOUTH, {"lipstick": 0.8}),
    "Bushy_Eyebrows": (BROWS, {"brow": 0.9}),
    "Bangs": ((20, 18, 80, 45), {"fringe": 0.8}),
    "beard": ((22, 48, 78, 90), {"beard": 0.8}),
    "Heavy_Makeup": ((22, 42, 78, 72), {"makeup": 0.8}),
    "Pale_Skin": ((18, 22, 82, 100), {"skin_tone": 0.05}),
    "iris": (EYES, {"iris": 1.0}),
    "shirt": ((0, 85, 100, 100), {"shirt": 1.0}),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("resolution", [32, 100])
def test_a_factor_shows_in_its_place_and_nowhere_else(name: str, resolution: int) -> None:
    place, changes = PLACES[name]
    change = np.abs(pixels(resolution, **changes) - pixels(resolution)).max(axis=2)
    left, top, right, bottom = (part * resolution / 100 for part in place)
    inside = np.zeros_like(change, bool)
    inside[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = True
    assert change[~inside].max() == 0
    assert change.max() > (20 if name != "iris" else 5)


@pytest.mark.parametrize(
    "name", [*FREE, "hair_color", "background", *(entry[1] for entry in ATTRIBUTES.values())]
)
def test_no_factor_is_without_effect(name: str) -> None:
    ends = {name: (-most, most) for name, most in FREE.items()}
    ends |= {factor: (without[0], within[1]) for _, factor, without, within in ATTRIBUTES.values()}
    ends |= {"hair_color": ("black", "blond"), "background": ("white", "green")}
    glasses = {"glasses": "clear"} if name == "glasses_size" else {}
    low, high = (pixels(**glasses, **{name: end}) for end in ends[name])
    assert np.abs(low - high).max() > 15


def test_hair_colors_look_like_their_names() -> None:
    crown = {
        color: pixels(hair_color=color, light=-1.0)[10:14, 36:40].mean(axis=(0, 1))
        for color in drawn.HAIR
    }
    assert sorted(crown, key=lambda color: crown[color].sum())[:2] == ["black", "brown"]
    assert np.ptp(crown["gray"]) < 8 < 60 < np.ptp(crown["blond"])
    assert crown["blond"].sum() > crown["gray"].sum() - 40
    assert crown["red"][0] > 2 * crown["red"][1]


def test_a_turned_head_is_mirrored_and_shows_more_hair_on_one_side() -> None:
    for hair_length in (-0.8, 0.5):
        front, right, left = (
            pixels(yaw=yaw, hair_length=hair_length, hair_color="red", background="gray")
            for yaw in (0.0, 35.0, -35.0)
        )
        assert (
            np.abs(right - left[:, ::-1]).mean() < 1
        )  # all but the glint in the eyes and the shadow of the nose
        hair = [np.abs(view - (178, 74, 32)).sum(axis=2) < 60 for view in (left, front, right)]
        sides = [
            view[:, :32].sum() / view[:, 32:].sum() for view in hair
        ]  # the image's left to its right
        assert sides[0] < 0.7 < sides[1] < 1.4 < sides[2]


def test_eyes_and_mouth_turn_with_the_head() -> None:
    def place(name: str, high: Any, yaw: float) -> float:
        change = np.abs(pixels(yaw=yaw, **{name: high}) - pixels(yaw=yaw)).sum(axis=(0, 2))
        return float((change * np.arange(64)).sum() / change.sum())

    for name, high in {"lipstick": 1.0, "brow": 1.0}.items():
        places = [place(name, high, yaw) for yaw in (-40.0, -20.0, 0.0, 20.0, 40.0)]
        assert (np.diff(places) > 2).all()
        assert places[2] == pytest.approx(31.5, abs=0.7)


# -- the source ----------------------------------------------------------------------------------------------------


def write_recipe(folder: Path, **section: Any) -> str:
    recipe = (Path(__file__).parents[1] / "shards" / "drawn.yaml").read_text()
    head = recipe[: recipe.index("drawn:\n")]
    tail = recipe[recipe.index("kinds:") :]
    (folder / "drawn.yaml").write_text(f"{head}drawn: {json.dumps(section)}\n{tail}")
    return str(folder / "drawn.yaml")


def test_packed_factors_draw_the_packed_pixels(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, images=40, seed=3, noise=0.2)
    index = pack.pack(
        recipes.plan(Pack(recipe=recipe, resolution=24, color="rgb", shard_images=16)),
        tmp_path / "shards",
    )
    schema = index.content.labels
    true = table(Options(images=40, seed=3, noise=0.2))
    assert {name for name in schema if schema[name].kind == "real"} == {
        *FREE,
        *(entry[1] for entry in ATTRIBUTES.values()),
    }
    for split in ("train", "test"):
        images = np.concatenate(index.maps(split))
        rows = index.table(split)
        for image, row in zip(images, rows.to_dict("records"), strict=True):
            file = row.pop("file")
            shown = {
                name: row[name] if schema[name].kind == "real" else schema[name].classes[row[name]]
                for name in schema
            }
            assert np.array_equal(image, np.asarray(draw(shown, 24)))
            assert all(row[name] == true.loc[file, name] for name in [*COLORED, *ATTRIBUTES])


def test_the_recipe_says_what_the_code_does() -> None:
    plan = recipes.plan(Pack(recipe="drawn"))
    assert plan.recipe["drawn"] == {
        "images": 10_000,
        "seed": 0,
        "prevalence": {},
        "correlate": {},
        "noise": 0.0,
    }
    assert len(plan.table) == 10_000
    assert plan.recipe["splits"] == pytest.approx({"train": 0.9, "test": 0.1})


def test_other_options_or_drawing_are_other_images() -> None:
    one, other = (
        drawn.find({"drawn": {"images": 5, "seed": seed}}, None).stamp for seed in (0, 1)
    )
    assert one != other
    assert one == json.loads(json.dumps(one))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"image": 5}, r"unknown key 'image'.*Did you mean 'images'"),
        ({"images": 0}, r"images is 0; it must be at least 1"),
        ({"images": "many"}, r"images.*many"),
        ({"seed": -1}, r"seed is -1; it must be at least 0"),
        ({"noise": 1.5}, r"noise is 1\.5; it must be at least 0 and at most 1"),
        ({"prevalence": {"Smilng": 0.5}}, r"prevalence has Smilng: 0\.5.*Smiling"),
        (
            {"prevalence": {"Smiling": 1.5}},
            r"prevalence has Smiling: 1\.5; it takes shares from 0 to 1",
        ),
        (
            {"prevalence": {"Black_Hair": 0.6}},
            r"Black_Hair, Brown_Hair, Blond_Hair, Gray_Hair add up to 1\.2; at most 1",
        ),
        (
            {"correlate": {"Smiling": ["Blond", 0.3]}},
            r"correlate has Smiling: \['Blond', 0\.3\].*Blond_Hair",
        ),
        ({"correlate": {"Smile": ["Blond_Hair", 0.3]}}, r"correlate has Smile"),
        (
            {"correlate": {"Bangs": ["Smiling", 0.3]}},
            r"correlate has Bangs: .* takes \[one before it, phi\]",
        ),
        (
            {"correlate": {"Gray_Hair": ["Black_Hair", 0.3]}},
            r"correlate has Gray_Hair: .*no hair colour",
        ),
        ({"correlate": {"Smiling": ["Smiling", 0.3]}}, r"correlate has Smiling"),
        ({"correlate": {"Smiling": ["Bangs"]}}, r"correlate has Smiling: \['Bangs'\]"),
        (
            {"correlate": {"Smiling": ["Bangs", "much"]}},
            r"correlate has Smiling: \['Bangs', 'much'\]",
        ),
        (
            {"correlate": {"Smiling": ["Bangs", 0.6]}},
            r"0\.5 of Smiling and 0\.25 of Bangs allow phi from -0\.577 to 0\.577",
        ),
        (
            {"correlate": {"Smiling": ["Bangs", 0.1]}, "prevalence": {"Bangs": 0.0}},
            r"allow phi from 0\.000 to 0\.000",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        drawn.find({"drawn": section}, None)


def test_a_folder_given_for_drawn_faces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pack\.root=.*: drawn faces lie in no folder"):
        recipes.plan(Pack(recipe="drawn", root=str(tmp_path)))


def test_the_largest_possible_correlation_is_drawn() -> None:
    labels = table(
        Options(images=MANY, prevalence={"Bangs": 0.5}, correlate={"Smiling": ["Bangs", 1.0]})
    )
    assert (labels["Smiling"] == labels["Bangs"]).all()
