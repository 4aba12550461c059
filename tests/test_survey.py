"""Surveys of packed sets: the measures are the known ones, and what is planted is found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import contingency

from facefactory import rundir
from facefactory.data.packing import survey
from facefactory.data.sets.index import FORMAT, Content, Index, Split, plain, read_as, write
from facefactory.data.sets.shard import write_shard
from facefactory.facts import Label

BINARY = Label("binary", ("0", "1"))


def write_set(
    folder: Path,
    splits: dict[str, pd.DataFrame],
    schema: dict[str, Label],
    images: np.ndarray | None = None,
    **content: Any,
) -> Index:
    """A packed set of encoded labels, two shards a split; the images [N, H, W, C] are random ones if not given."""
    total = sum(map(len, splits.values()))
    images = (
        np.random.default_rng(0).integers(0, 256, (total, 8, 8, 1), np.uint8)
        if images is None
        else images
    )

    # its shards
    made = {}
    first = 0
    for name, table in splits.items():
        table = table.reset_index(drop=True)
        table.insert(0, "file", [f"{name}/{number}.png" for number in range(len(table))])
        parts = []
        half = -(-len(table) // 2)
        for number, start in enumerate(range(0, len(table), half)):
            rows = table.iloc[start : start + half]
            where = range(first + start, first + start + len(rows))
            stem = str(folder / f"{name}-{number:06d}")
            parts.append(write_shard(stem, start, where, rows, images.__getitem__)[0])
        made[name], first = Split(len(table), parts), first + len(table)

    # its index
    facts = Content(
        format=FORMAT,
        storage="raw",
        dataset="made",
        resolution=images.shape[1],
        channels=images.shape[3],
        labels=schema,
        origin="made here",
        licence="none",
        splits=made,
        skipped=[],
    )
    return write(folder, read_as(Content, {**plain(facts), **content}))


def counts_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return pd.crosstab(a, b).to_numpy().astype(float)


# -- the measures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "value"),
    [
        ([[5, 0], [0, 7]], 1),
        ([[0, 5], [7, 0]], -1),
        ([[2, 4], [3, 6]], 0),
        ([[30, 10], [10, 50]], 7 / 12),
    ],
)
def test_phi_of_known_tables(counts: list[list[int]], value: float) -> None:
    assert survey.phi(np.array(counts, float)) == pytest.approx(value)


def test_phi_is_pearsons_correlation_and_its_size_cramers_v() -> None:
    draws = np.random.default_rng(1)
    for _ in range(20):
        a = draws.random(500) < draws.uniform(0.1, 0.9)
        b = np.where(draws.random(500) < 0.4, ~a, draws.random(500) < 0.3)
        found = survey.phi(counts_of(a, b))
        assert found == pytest.approx(np.corrcoef(a, b)[0, 1])
        assert abs(found) == pytest.approx(
            contingency.association(counts_of(a, b).astype(int), "cramer")
        )


def test_cramers_v_of_millions_does_not_overflow() -> None:
    assert survey.phi(np.array([[3e9, 1e9], [1e9, 5e9]])) == pytest.approx(7 / 12)


@pytest.mark.parametrize("size", [2, 3, 9])
def test_cramers_v_is_one_for_copies_and_zero_for_exact_independence(size: int) -> None:
    assert survey.cramers_v(np.eye(size) * 40) == pytest.approx(1)
    assert survey.cramers_v(np.full((size, 4), 25.0)) == 0


def test_cramers_v_is_scipys_with_bergsmas_correction() -> None:
    """Against the closed form of the paper, from scipy's uncorrected V."""
    draws = np.random.default_rng(2)
    for rows, columns in [(2, 2), (2, 5), (4, 3), (6, 6)]:
        counts = draws.integers(1, 60, (rows, columns))
        n = counts.sum()
        square = contingency.association(counts, "cramer") ** 2 * (min(rows, columns) - 1)
        corrected = max(0, square - (rows - 1) * (columns - 1) / (n - 1))
        sizes = [rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)]
        assert survey.cramers_v(counts.astype(float)) == pytest.approx(
            (corrected / (min(sizes) - 1)) ** 0.5
        )


def test_the_correction_takes_away_the_bias_of_few_images() -> None:
    draws = np.random.default_rng(3)
    tables = [counts_of(draws.integers(0, 5, 60), draws.integers(0, 5, 60)) for _ in range(200)]
    plain = np.mean([contingency.association(one.astype(int), "cramer") for one in tables])
    assert plain > 0.2 > 0.1 > np.mean([survey.cramers_v(one) for one in tables])


@pytest.mark.parametrize("counts", [[[0, 0], [0, 0]], [[5, 4], [0, 0]], [[5, 0], [3, 0]]])
def test_a_label_that_does_not_vary_goes_with_nothing(counts: list[list[int]]) -> None:
    table = np.array(counts, float)
    assert np.isnan(survey.phi(table))
    assert np.isnan(survey.cramers_v(table))


def test_clustering_puts_those_side_by_side_that_go_together() -> None:
    pairs = {0: 5, 3: 1, 2: 4}
    values = np.eye(6)
    for a, b in pairs.items():
        values[a, b] = values[b, a] = -0.8 if a == 3 else 0.7  # opposites go together too
    values[0, 2] = values[2, 0] = np.nan
    found = survey.clustered(values)
    assert sorted(found) == list(range(6))
    assert all(abs(found.index(a) - found.index(b)) == 1 for a, b in pairs.items())
    assert survey.clustered(np.eye(0)) == []
    assert survey.clustered(np.eye(2)) == [0, 1]


def test_missing_labels_are_left_out_pair_by_pair() -> None:
    a, b, c = np.random.default_rng(4).integers(0, 2, (3, 300))
    b[:200] = a[:200]
    table = pd.DataFrame({"a": a, "b": b, "c": c}, dtype=np.int32)
    table.loc[::3, "a"] = -1
    table.loc[1::3, "c"] = -1
    found = survey.together(table, dict.fromkeys("abc", BINARY), list("abc"))
    for one, row in zip(found["labels"], found["associations"], strict=True):
        for other, value in zip(found["labels"], row, strict=True):
            known = table[(table[one] >= 0) & (table[other] >= 0)]
            assert value == pytest.approx(np.corrcoef(known[one], known[other])[0, 1], abs=1e-4)
    for one, row in zip(found["classes"], found["counts"], strict=True):
        for other, count in zip(found["classes"], row, strict=True):
            assert count == ((table[one] == 1) & (table[other] == 1)).sum()


def test_labels_of_several_classes_show_each_class() -> None:
    age = np.random.default_rng(5).integers(-1, 3, 400)
    table = pd.DataFrame({"Old": np.where(age < 0, 0, age == 2), "Age": age}, dtype=np.int32)
    found = survey.together(
        table,
        {"Old": BINARY, "Age": Label("ordinal", ("a", "b", "c"))},
        ["Old", "Age"],
    )
    assert found["classes"] == ["Old", "Age: a", "Age: b", "Age: c"]
    assert found["associations"][0][1] == pytest.approx(1, abs=0.01)
    assert found["counts"][0][1:] == [0, 0, (age == 2).sum()]


# -- a whole set ---------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(tmp_path: Path) -> Index:
    """60 + 40 images of 10 people, 3 of them in both splits; a rare label, one with gaps, a real one with gaps."""
    schema = {
        "Person": Label("identity", tuple(f"p{number}" for number in range(10))),
        "Rare": BINARY,
        "a/b *": Label("categorical", ("x", "y", "never")),
        "Yaw": Label("real"),
        "City": Label(
            "categorical", tuple(str(number) for number in range(survey.MOST_CLASSES + 1))
        ),
    }
    draws = np.random.default_rng(6)
    splits = {}
    for name, count, first in (("train", 60, 0), ("test", 40, 3)):
        who = np.arange(count) % 7 + first
        who[who == 6] = -1  # nobody knows
        rare = np.where(np.arange(count) == 7, 1, 0)
        yaw = np.where(np.arange(count) % 4, draws.normal(size=count), np.nan)
        columns = {"Person": who, "Rare": rare, "a/b *": np.arange(count) % 3 - 1}
        splits[name] = pd.DataFrame({**columns, "Yaw": yaw, "City": 1}).astype({"Yaw": np.float32})
        splits[name] = splits[name].astype(dict.fromkeys([*columns, "City"], np.int32))
    images = np.repeat(np.arange(100, dtype=np.uint8), 64).reshape(100, 8, 8, 1)
    return write_set(tmp_path / "set", splits, schema, images, group="Person")


def test_counts_people_and_leaks_are_those_planted(planted: Index) -> None:
    found = survey.survey(planted)
    assert found == json.loads(
        (planted.folder / "survey.json").read_text(), parse_constant=pytest.fail
    )
    assert found["splits"] == {"train": 60, "test": 40}
    assert found["labels"]["Rare"]["images"] == {"train": [59, 1], "test": [39, 1]}
    assert found["labels"]["Rare"]["people"] == [9, 2]
    assert found["labels"]["a/b *"]["images"] == {"train": [20, 20, 0], "test": [13, 13, 0]}
    assert "images" not in found["labels"]["City"]
    assert "images" not in found["labels"]["Person"]
    yaw = pd.concat([planted.table(split)["Yaw"] for split in ("train", "test")])
    assert found["labels"]["Yaw"]["quantiles"] == pytest.approx(
        yaw.quantile([0, 0.05, 0.5, 0.95, 1]).tolist()
    )
    people = found["people"]
    assert (people["all"], people["splits"], people["in_several_splits"]) == (
        9,
        {"train": 6, "test": 6},
        3,
    )
    assert [entry["person"] for entry in people["first"]] == ["p3", "p4", "p5"]
    assert all(entry["train"] and entry["test"] for entry in people["first"])


def test_brightness_and_grids_are_of_the_images(planted: Index) -> None:
    """Image i has the gray value i, so each picture tells which images it shows."""
    found = survey.survey(planted)
    assert found["brightness"] == {"images": 100, "counts": [4] * 25 + [0] * 39}
    tables = pd.concat([planted.table(split) for split in ("train", "test")], ignore_index=True)
    for name in ("Rare", "a/b *"):
        with Image.open(planted.folder / found["labels"][name]["samples"]) as picture:
            shown = np.asarray(picture)[::8, ::8]
        assert shown.shape[1] == survey.COLUMNS
        for code, row in enumerate(shown):
            members = np.flatnonzero(tables[name] == code)
            row = row[row < 255]
            assert len(set(row)) == len(row) == min(survey.COLUMNS, len(members))
            assert set(row) <= set(members)
    before = {path.name: path.read_bytes() for path in planted.folder.glob("samples/*.png")}
    assert len(before) == 3
    survey.survey(planted)
    assert before == {
        path.name: path.read_bytes() for path in planted.folder.glob("samples/*.png")
    }


def test_large_images_are_shrunk_and_few_of_them_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.full((9, 130, 130, 3), 7, np.uint8)
    index = write_set(
        tmp_path,
        {"train": pd.DataFrame(index=range(9))},
        {},
        images,
    )
    monkeypatch.setattr(survey, "SAMPLED_BYTES", 4 * images[0].nbytes)
    found = survey.survey(index)
    assert found["brightness"]["images"] == 4
    with Image.open(tmp_path / found["samples"]) as picture:
        assert picture.mode == "RGB"
        assert picture.height // 4 <= survey.SIDE


def test_a_set_without_labels_and_people_has_pictures(tmp_path: Path) -> None:
    found = survey.survey(write_set(tmp_path, {"train": pd.DataFrame(index=range(5))}, {}))
    assert found["labels"] == {}
    assert "people" not in found
    assert found["together"]["labels"] == []
    assert found["splits"] == {"train": 5}
    assert (tmp_path / found["samples"]).is_file()


def test_where_nothing_can_be_written_the_survey_goes_to_the_cache(
    planted: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = sorted(planted.folder.iterdir())
    survey.survey(planted)
    assert sorted(planted.folder.iterdir()) == before
    assert survey.place(planted).parent == rundir.cache_folder() / "surveys"
    assert len(list(survey.place(planted).rglob("*.png"))) == 3
    assert (survey.place(planted) / "survey.json").is_file()
