"""Pages of packed sets: what they say first, what they never do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_survey import BINARY, write_set

from facefactory.data.packing import survey
from facefactory.facts import Label
from facefactory.report import dataset

EVIL = "<script>alert(1)</script>"
PACKED = {
    "skipped": [
        {"file": f"{EVIL}.jpg", "reason": "OSError: image file is truncated"},
        {"file": "b.jpg", "reason": "ValueError: x"},
    ],
    "account": {
        "found": 407,
        "packed": 200,
        "skipped": 2,
        "left_out": {
            "hidden files": {"count": 5, "first": [".a"]},
            f"{EVIL} files": {"count": 200, "first": ["b", "c"]},
        },
    },
    "pictures": {
        "dark": {"count": 3, "first": [f"{EVIL}.png", "n.png"]},
        "flat": {"count": 0, "first": []},
        "unseen": {"count": 1200, "first": ["t.bmp"]},
        "sixteen_bit": {"images": 24, "highest": 4080, "bits": 12},
    },
    "alike": {"train": {"images": 150, "different": 9}, "test": {"images": 50, "different": 50}},
    "rows_without_image": {"count": 1234, "first": ["gone.jpg"]},
    "images_without_row": {"count": 0, "first": []},
    "image_sizes": {"178x218": 90, "40x50": 10},
    "duplicates": {
        "across_splits": {"exact": 1, "near": 2},
        "first": [["train/a.jpg", "test/b.jpg", "near"]],
    },
    "selection": {
        "found": 400,
        "of_no_split": 5,
        "where": 300,
        "balance": {
            "label": "Age",
            "before": {"train": {"young": 70, "old": 30}},
            "after": {"train": {"young": 30, "old": 30}},
        },
    },
    "labels_left_out": {"Necklace": "0.1 % of the images"},
    "notes": ["400 images found; the whole set has 500"],
    "recipe": {"name": "made", "where": "Smiling and not Male", "limit": None, "balance": "Age"},
}


def write(
    folder: Path, *, leak: bool = False, people: bool = True, **packed: Any
) -> tuple[str, dict[str, Any]]:
    """(the text of the page without scripts and tags, report.json read strictly) of 200 images with planted labels."""
    draws = np.random.default_rng(0)
    number = np.arange(200)
    smiling = draws.integers(0, 2, 200)
    cheeks = np.where(draws.random(200) < 0.95, smiling, 1 - smiling)
    columns = {
        "Smiling": smiling,
        "High_Cheekbones": cheeks,
        "Bald": number == 7,
        "Male": draws.integers(0, 2, 200),
    }
    table = pd.DataFrame(
        {**columns, "Age": draws.integers(0, 2, 200), "Person": number // 10}
    ).astype(np.int32)
    table.loc[:49, "Male"] = -1
    if leak:
        table.loc[199, "Person"] = 0
    schema: dict[str, Label] = dict.fromkeys(columns, BINARY)
    schema |= {"Age": Label("ordinal", ("young", "old"))}
    schema |= {"Person": Label("identity", tuple(f"P{one}" for one in range(20)))}
    splits = {"train": table[:150], "test": table[150:]}
    index = write_set(folder, splits, schema, group="Person" if people else None, **packed)
    survey.survey(index)
    return read(folder)


def read(folder: Path, out: Path | None = None) -> tuple[str, dict[str, Any]]:
    """Write the page and read it, checked for what holds of every page."""
    page, data = dataset.write(folder, out or folder)
    assert (page, data) == ((out or folder) / "report.html", (out or folder) / "report.json")
    text = page.read_text()
    assert text.count("plotly.js v") == 1
    own = re.sub(r'<!-- plotly.js v.*? id="plotly">.*?</script>', "", text, flags=re.S)
    assert len(own) < len(text) - 1_000_000
    assert "<script>alert" not in own
    assert not re.search(r"(src|href)=[\"'](?!#|data:)|url\(|@import", own)
    assert not re.search(
        r"https?://(?!plot\.ly)", re.sub(r"<script.*?</script>", "", own, flags=re.S)
    )
    bare = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", own, flags=re.S)
    return " ".join(bare.replace("&#39;", "'").replace("&lt;", "<").split()), json.loads(
        data.read_text(), parse_constant=pytest.fail
    )


def test_the_page_begins_with_what_a_person_must_know(tmp_path: Path) -> None:
    text, data = write(tmp_path, **PACKED)
    verdict = text[: text.index("Some of them, always the same ones")]
    for sentence in (
        "This set has 200 images of 20 people: train 150, test 50.",
        "No person is in two splits.",
        "Caution: 3 pairs of pictures alike in two splits (1 exact, 2 near).",
        "2 files were skipped: 1 OSError, 1 ValueError.",
        "Caution: 24 pictures have 16 bits and no value above 4,080: they were taken as pictures of 12 bits.",
        "Caution: 1,200 pictures are transparent everywhere, and their colours were taken as they are, e.g. t.bmp.",
        "Caution: the 150 pictures in train are 9 different ones: the others are copies, or nearly.",
        "Labels with classes of a single image, which is either learned or tested: Bald (1).",
        "1 class is rarer than 2 %: Bald (0.5 %).",
        "1 class is of fewer than 8 people, too few for a score: Bald (1).",
        "Some labels are unknown for some images: Male (25 %).",
        "Labels left out: Necklace.",
        "Of 400 images found, 200 are packed (where: Smiling and not Male, balance: Age).",
        "Of 407 files found, 200 are packed, 2 skipped and 205 left out.",
        "400 images found; the whole set has 500.",
    ):
        assert sentence in verdict

    # labels that go together
    phi = labels_of(tmp_path)[["Smiling", "High_Cheekbones"]].corr().iloc[0, 1]
    found = re.findall(r"(\w+) and (\w+) go together \(phi ([0-9.]+)\)", verdict)
    assert [({a, b}, value) for a, b, value in found] == [
        ({"Smiling", "High_Cheekbones"}, f"{phi:.2f}")
    ]
    assert (data["survey"]["splits"], data["index"]["dataset"]) == (
        {"train": 150, "test": 50},
        "made",
    )


def labels_of(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in folder.glob("*.parquet")])


def test_what_packing_did_is_shown(tmp_path: Path) -> None:
    text, _ = write(tmp_path, **PACKED)
    assert "1,234, e.g. gone.jpg" in text
    assert "train/a.jpg test/b.jpg near" in text
    assert f"{EVIL}.jpg OSError: image file is truncated" in text.replace("&gt;", ">")
    assert "hidden files 5, e.g. .a" in text
    assert "files 200, e.g. b, c" in text
    assert (
        "in no split, left out 5 images that fit the condition 300 images packed 200 images"
        in text
    )
    assert "Balanced by Age young old train 70 → 30 30 → 30" in text
    assert "178x218 90 40x50 10" in text
    assert "Not recorded" not in text
    assert "Not drawn" not in text


def test_many_sizes_are_drawn(tmp_path: Path) -> None:
    write(tmp_path, image_sizes={f"{side}x{side + 9}": 3 for side in range(30, 90)})
    assert 'id="sizes"' in (tmp_path / "report.html").read_text()


def test_a_person_in_two_splits_is_named(tmp_path: Path) -> None:
    text, _ = write(tmp_path, leak=True)
    assert "Caution: 1 person is in two splits: P0." in text
    assert "person train test P0 10 1" in text


def test_a_set_that_is_too_small_says_so(tmp_path: Path) -> None:
    table = pd.DataFrame({"Person": [0, 0, 0, 1], "Smiling": 1}, dtype=np.int32)
    schema: dict[str, Label] = {
        "Person": Label("identity", ("a", "b")),
        "Smiling": BINARY,
    }
    survey.survey(write_set(tmp_path, {"train": table, "test": table[:1]}, schema, group="Person"))
    text, _ = read(tmp_path)
    assert "Caution: few images to learn or to score from: train (4), test (1)." in text
    assert "Caution: only one person is in test." in text
    assert "Nothing can be learned from labels of one class alone: Smiling." in text


def test_counts_are_those_of_the_tables(tmp_path: Path) -> None:
    _, data = write(tmp_path)
    table = labels_of(tmp_path)
    for row in data["classes"]:
        code = data["index"]["labels"][row["label"]]["classes"].index(row["class"])
        has = table[table[row["label"]] == code]
        assert (row["images"], row["people"]) == (len(has), has["Person"].nunique())
        assert row["share %"] == pytest.approx(100 * len(has) / (table[row["label"]] >= 0).sum())
        assert row["splits"]["test"] == has["file"].str.startswith("test/").sum()


def test_what_is_not_recorded_is_said(tmp_path: Path) -> None:
    text, _ = write(tmp_path, people=False)
    assert "Nothing says who is shown" in text
    assert "the recipe names no group" in text
    assert text.count("Not recorded.") == 8
    assert "Caution" not in text
    assert "are packed" not in text


def test_a_set_without_labels_has_a_page(tmp_path: Path) -> None:
    survey.survey(write_set(tmp_path, {"train": pd.DataFrame(index=range(5))}, {}))
    text, data = read(tmp_path)
    assert "This set has 5 images: train 5." in text
    assert "This set has no labels whose classes could be counted." in text
    assert data["classes"] == []
    assert "Association" not in text


def test_labels_with_strange_names_and_never_known_ones_have_a_page(tmp_path: Path) -> None:
    names = [EVIL, "ä b/c", "<b>", "100%"]
    table = pd.DataFrame(
        {name: np.arange(40) % 2 for name in names} | {"100%": -1}, dtype=np.int32
    )
    schema = dict.fromkeys(names, BINARY) | {
        "<b>": Label("categorical", ("<i>", "</script>")),
        "Yaw": Label("real"),
    }
    table["Yaw"] = np.float32("nan")
    survey.survey(write_set(tmp_path, {"train": table, "test": table}, schema))
    text, data = read(tmp_path)
    assert "100% (100 %)" in text
    assert len(data["survey"]["together"]["labels"]) == 4
    assert len(list((tmp_path / "samples").iterdir())) == 5


def test_names_are_no_markup_in_figures_and_long_ones_are_cut_where_they_stay_apart() -> None:
    long = "a rather long name of a label: " + "x" * 40
    assert dataset.shown_as(["<b>&", long]) == [
        "&lt;b&gt;&amp;",
        "a rather long name of a la…xxxxxxxxxxxx",
    ]
    assert dataset.shown_as([long, long.replace(":", ";")]) == [long, long.replace(":", ";")]


def test_the_same_set_has_the_same_page(tmp_path: Path) -> None:
    write(tmp_path, **PACKED)
    before = (tmp_path / "report.html").read_bytes()
    read(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


def test_a_survey_that_lies_elsewhere_is_found(tmp_path: Path) -> None:
    write(tmp_path / "set", **PACKED)
    (tmp_path / "set" / "samples").rename(tmp_path / "samples")
    (tmp_path / "set" / "survey.json").rename(tmp_path / "survey.json")
    assert " is missing." not in read(tmp_path / "set", tmp_path)[0]
    (tmp_path / "samples" / "any.png").unlink()
    assert "samples/any.png is missing." in read(tmp_path / "set", tmp_path)[0]
