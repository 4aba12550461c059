"""Conditions mean what they say and run nothing; equal classes, sparse labels and leaks are exact."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pandas as pd
import pytest
from conftest import Faces, draw_face
from PIL import Image

from facefactory import UserError
from facefactory.data import Pack
from facefactory.data.packing import pack, recipes, select
from facefactory.data.sets.index import Pairs
from facefactory.facts import Label

SCHEMA: dict[str, Label] = {
    "Male": Label("binary", ("0", "1")),
    "Smiling": Label("binary", ("0", "1")),
    "5 o'clock": Label("binary", ("0", "1")),
    "Emotion": Label("categorical", ("fear", "joy", "in love")),
    "Age": Label("ordinal", ("0-2", "3-9", "more than 70")),
    "Year": Label("categorical", ("1999", "2004", "2010")),
    "Score": Label("real"),
}
TABLE = pd.DataFrame(
    {
        "Male": [0, 1, 0, 1, -1, -1],
        "Smiling": [0, 0, 1, 1, 0, 1],
        "5 o'clock": [1, 0, 0, 0, 0, -1],
        "Emotion": [0, 1, 2, -1, 0, 1],
        "Age": [0, 1, 2, 0, 1, -1],
        "Year": [0, 1, 2, 0, -1, 2],
        "Score": np.array([0.5, 1.5, -1.0, np.nan, 0.0, 2.0], np.float32),
    }
)


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("Smiling and not Male", [2]),
        ("not Male", [0, 2]),
        ("Male or Smiling", [1, 2, 3, 5]),
        ("not (Male and Smiling)", [0, 1, 2, 4]),
        ("Male == 1", [1, 3]),
        ("Male == -1", [0, 2]),
        ("Emotion == joy", [1, 5]),
        ("Emotion != joy", [0, 2, 4]),
        ("Emotion == 'in love' or `5 o'clock`", [0, 2]),
        ("Emotion in (joy, `in love`)", [1, 2, 5]),
        ("Emotion not in [joy]", [0, 2, 4]),
        ("Emotion in (joy)", [1, 5]),
        ("Age >= '3-9'", [1, 2, 4]),
        ("Year > 2000", [1, 2, 5]),
        ("Year == 1900", []),
        ("Score >= 0.5", [0, 1, 5]),
        ("Score < 0 and Smiling", [2]),
        (" not not Male ", [1, 3]),
    ],
)
def test_conditions_mean_what_they_say(expression: str, kept: list[int]) -> None:
    assert np.flatnonzero(select.where(expression, TABLE, SCHEMA)).tolist() == kept


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("Smilling", r"no label 'Smilling'.*Did you mean 'Smiling'\?"),
        ("Emotion == jo", r"Emotion is never 'jo', only fear, joy, in love"),
        ("Emotion", r"'Emotion' is not understood"),
        ("Emotion < joy", r"the classes of Emotion have no order"),
        ("Score == high", r"Score is never 'high'"),
        ("Score == None", r"Score is never None"),
        ("Score > 1" + "0" * 400, r"Score is never"),
        ("Male == 2", "Male is never 2"),
        ("Male in (3, 7)", "Male is never 3"),
        ("Male and", "it is not readable"),
        ("1 == 1", r"no label 1"),
        ("0 < Score < 1", "is not understood"),
        ("Emotion in ()", "is not understood"),
        ("__import__('os').system('true')", "is not understood"),
        ("Male == __import__('os').getpid()", "is not understood"),
        ("[x for x in Male]", "is not understood"),
        ("(lambda: 1)()", "is not understood"),
        ("(" * 300 + "Male" + ")" * 300, "it is not readable"),
        ("Male\x00", "it is not readable"),
    ],
)
def test_other_conditions_are_refused_with_the_reason(expression: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"(?s){message}.*allowed are label names"):
        select.where(expression, TABLE, SCHEMA)


def test_balancing_leaves_each_class_of_each_split_the_same_number() -> None:
    codes = np.array([0] * 10 + [1] * 4 + [2] * 7 + [-1] * 3)
    splits = np.array((["train"] * 3 + ["test"]) * 6)
    kept = select.balanced(codes, splits, ["a", "b", "c"])
    found = Counter(zip(splits[kept].tolist(), codes[kept].tolist(), strict=True))
    least = {
        split: min(((splits == split) & (codes == code)).sum() for code in range(3))
        for split in ("train", "test")
    }
    assert found == {(split, code): number for split, number in least.items() for code in range(3)}
    assert (np.diff(kept) > 0).all()
    assert np.array_equal(kept, select.balanced(codes, splits, ["a", "b", "c"]))
    with pytest.raises(UserError, match="split 'test' has no image of class 'b'"):
        select.balanced(np.array([0, 1, 0]), np.array(["train", "train", "test"]), ["a", "b"])


def options_for(faces: Faces, **changes: Any) -> Pack:
    return Pack(
        recipe=str(faces.recipe),
        resolution=8,
        **changes,
    )


def test_where_limit_and_balance_are_counted_in_the_index(faces: Faces, tmp_path: Path) -> None:
    index = pack.pack(
        recipes.plan(options_for(faces, where="not Beard", balance="Glasses", limit=20)), tmp_path
    )
    chosen = index.content.selection
    assert chosen is not None
    assert chosen.balance is not None
    assert (chosen.found, chosen.where, chosen.limit) == (60, 30, 20)
    for split, before in chosen.balance.before.items():
        assert chosen.balance.after[split] == dict.fromkeys(("0", "1"), min(before.values()))
    tables = pd.concat([index.table(split) for split in index.content.splits])
    assert Counter(tables["Beard"]) == {0: len(tables)}
    assert Counter(tables["Glasses"]) == dict.fromkeys((0, 1), len(tables) // 2)
    assert len(index.content.labels["Person"].classes) == tables["Person"].nunique()


def test_a_limit_takes_from_everywhere_and_people_stay_on_one_side(faces: Faces) -> None:
    plan = recipes.plan(options_for(faces, limit=30))
    assert len(plan.table) == 30
    assert plan.table["Person"].nunique() > 8
    assert pd.Series(plan.splits).groupby(plan.table["Person"]).nunique().max() == 1
    assert len(recipes.plan(options_for(faces, limit=1000)).table) == 60


def test_labels_are_kept_dropped_and_left_out_when_sparse(faces: Faces) -> None:
    assert list(recipes.plan(options_for(faces, drop=["Beard"])).schema) == ["Person", "Glasses"]
    assert list(recipes.plan(options_for(faces, keep=["Beard"])).schema) == [
        "Person",
        "Beard",
    ]  # the group stays
    sparse = recipes.plan(options_for(faces, min_prevalence=0.45))
    assert list(sparse.schema) == ["Person", "Beard"]
    assert sparse.noticed.labels_left_out == {"Glasses": "its rarer side has 40.00% of 60 images"}
    with pytest.raises(UserError, match=r"'Bear' is not a label; .* Did you mean 'Beard'\?"):
        recipes.plan(options_for(faces, drop=["Bear"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"where": "Person == 99"}, "no image of drawn is left"),
        ({"balance": "Hat"}, r"'Hat' is not a label; there are Person, Glasses, Beard"),
        ({"balance": "File"}, r"balance 'File' is not a label"),
        ({"crop": "oval"}, r"crop is 'oval'; allowed are fit \(or square\), none"),
        ({"crop": "10,10,5,20"}, "crop is '10,10,5,20'; allowed are"),
    ],
)
def test_selections_that_cannot_be_are_refused(
    faces: Faces, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        recipes.plan(options_for(faces, **changes))


def test_a_real_number_has_no_classes_to_balance(faces: Faces, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,Score\np00/0.png,0.5\np01/0.png,0.7\n")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"{{name: mine, source: folder, root: {faces.root}, splits: {{train: 1.0}}, labels: labels.csv}}"
    )
    with pytest.raises(UserError, match="balance='Score' is a label without classes"):
        recipes.plan(Pack(str(recipe), balance="Score"))


# -- duplicates ----------------------------------------------------------------------------------------------------


def mark(image: Image.Image) -> bytes:
    return np.packbits(imagehash.dhash(image, 16).hash).tobytes() + b"abcd"


def test_pairs_within_the_distance_are_found_among_many() -> None:
    random = np.random.default_rng(0)
    marks = random.integers(
        0,
        256,
        (20_000, select.MARK),
        np.uint8,
    )
    splits = np.where(np.arange(20_000) < 15_000, "train", "test")
    wanted = {}
    for number in range(200):  # 1 to 10 bits changed; every tenth is the same picture
        marks[15_000 + number] = marks[number]
        bits = [] if number % 10 == 0 else random.choice(256, number % 10, replace=False)
        for bit in bits:
            marks[15_000 + number, bit // 8] ^= 1 << bit % 8
        wanted[number, 15_000 + number] = "near" if len(bits) else "exact"
    found = select.duplicates(marks, splits)
    assert found.keys() <= wanted.keys()
    assert len(found) >= 198
    assert all(found[pair] == kind for pair, kind in wanted.items() if kind == "exact")
    assert select.duplicates(marks, np.full(20_000, "train")) == {}


def test_no_more_than_the_most_pairs_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "MOST", 10)
    marks = np.repeat(
        np.random.default_rng(0).integers(0, 256, (40, select.MARK), np.uint8), 2, axis=0
    )
    assert len(select.duplicates(marks, np.arange(80) % 2)) == 11


def test_copies_across_splits_are_named_and_other_faces_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
    for person in range(12):
        draw_face(person, person % 5).save(
            tmp_path / "set" / ("train" if person < 8 else "test") / f"{person}.png"
        )

    # one face twice more in the other split: exact, and nearly
    face = draw_face(2, 2)
    face.save(tmp_path / "set" / "test" / "same.png")
    stream = io.BytesIO()
    face.resize((60, 72), Image.Resampling.BICUBIC).save(
        stream,
        "JPEG",
        quality=80,
    )
    (tmp_path / "set" / "test" / "copy.jpg").write_bytes(stream.getvalue())
    (tmp_path / "mine.yaml").write_text(
        "{name: mine, source: folder, splits: {train: 0.5, test: 0.5}, pattern: '^(?P<part>[a-z]+)/',"
        " split: {by: part, names: {train: train, test: test}}}"
    )

    # each is found once
    index = pack.pack(
        recipes.plan(Pack(str(tmp_path / "mine.yaml"), str(tmp_path / "set"), resolution=32)),
        tmp_path / "shards",
    )
    found = index.content.duplicates
    assert found.across_splits == Pairs(exact=1, near=1)
    assert [list(pair) for pair in sorted(found.first)] == [
        ["train/train/2.png", "test/test/copy.jpg", "near"],
        ["train/train/2.png", "test/test/same.png", "exact"],
    ]
    assert "2 pairs of pictures in two splits are alike" in capsys.readouterr().err


def test_people_on_both_sides_of_the_sets_own_split_are_counted(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number in range(6):
        draw_face(number, 0).save(tmp_path / "set" / f"{number}.png")
    (tmp_path / "labels.csv").write_text(
        "file,Who,Part\n0.png,1,a\n1.png,1,b\n2.png,2,a\n3.png,2,a\n4.png,,a\n5.png,,b\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "{name: mine, source: folder, splits: {a: 0.5, b: 0.5}, labels: labels.csv, kinds: {Who: identity}, group: Who,"
        " split: {by: Part, names: {a: a, b: b}}}"
    )
    plan = recipes.plan(Pack(str(tmp_path / "mine.yaml"), str(tmp_path / "set")))
    assert plan.noticed.people_in_several_splits == 1
    assert plan.splits.tolist() == list("abaaab")
