"""What the cells of label tables mean: numbers, words, and nothing."""

from __future__ import annotations

import datetime
import decimal
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from facefactory import UserError
from facefactory.data.packing import tables, values
from facefactory.data.packing.values import typed


def column(
    cells: list[Any], kind: Any = None, dtype: Any = None
) -> tuple[list[Any], values.Typed]:
    """A column called A of images 0.png …, as it is read (None = missing), and all that was said."""
    names = [f"{number}.png" for number in range(len(cells))]
    found = typed(pd.DataFrame({"A": pd.Series(cells, names, dtype)}), {"A": kind} if kind else {})
    read = found.table.get("A", [])
    return [None if value != value else value for value in read], found


def test_file_names_stay_text_and_none_is_a_word(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file,Glasses,Age\n007,None,\n008,sun,5\n010,,NA\n")
    images = tables.Images(["007", "008", "010"])
    table = typed(tables.read_tables([{"file": "a.csv"}], tmp_path, images).rows, {}).table
    assert table.index.tolist() == ["007", "008", "010"]
    assert table["Glasses"].dropna().tolist() == ["None", "sun"]
    assert table["Age"].isna().tolist() == [True, False, True]


def test_yamls_booleans_are_the_words_of_tables() -> None:
    spelled = values.spelled({True: "ja", False: "nein", 3: "drei", "x": "y"})
    assert [spelled[value] for value in ("yes", "1", "True", "NO", "3", "x")] == [
        "ja",
        "ja",
        "ja",
        "nein",
        "drei",
        "y",
    ]


def test_whole_numbers_with_gaps_are_written_without_a_point() -> None:
    assert values.texts(pd.Series([3.0, np.nan, 12.0])).tolist()[::2] == ["3", "12"]


def test_words_that_differ_by_blanks_or_case_are_one() -> None:
    cells = [
        "Male",
        "Male ",
        "Female",
        "male",
        "Male",
        "\u00a0female",
        "more  than 70",
        "more than 70",
    ]
    read, found = column(cells)
    assert read[:6] == ["Male", "Male", "Female", "Male", "Male", "Female"]
    assert len(set(read[6:])) == 1
    assert found.notes == [
        "label 'A': values that differ by blanks or case, 'Male', 'Male ', 'male' are one, 'Male', and 2 more"
    ]
    read, found = column(["a", "A", "a"], {"kind": "categorical", "classes": ["a", "A"]})
    assert read == ["a", "A", "a"]
    assert not found.notes
    assert column(["OLD", "young"], {"kind": "ordinal", "classes": ["young", "old"]})[0] == [
        "old",
        "young",
    ]


@pytest.mark.parametrize(
    "word",
    ["NULL", "N/A", "unknown", "?", "-", "none", "nan", "#N/A", "", " ", "Not available", "\\N"],
)
@pytest.mark.parametrize("kind", [None, "real", "ordinal"])
def test_a_word_for_missing_leaves_a_column_of_numbers_one(word: str, kind: str | None) -> None:
    cells = [f"{20 + number}.5" for number in range(30)]
    read, found = column([*cells, word, "55.5"], kind)
    assert read == [*map(float, cells), None, 55.5]
    vague = word.strip().casefold() in values.VAGUE
    assert found.notes == ([f"label 'A': 1 values {word!r} count as missing"] if vague else [])


def test_words_for_missing_are_classes_beside_other_words() -> None:
    assert column(["none", "sun", "?", "unknown"])[0] == ["none", "sun", None, "unknown"]
    assert column(["unknown", "Ann", "unknown"], "identity")[0] == [None, "Ann", None]


def test_a_word_among_many_numbers_is_refused_and_beside_few_told() -> None:
    with pytest.raises(
        UserError,
        match=r"label 'A' holds 'abc' \(of 30\.png\) among 30 numbers; mend or empty it, leave",
    ):
        column([*map(str, range(30)), "abc"])
    read, found = column(["1", "2", "3+", "2"])
    assert read == ["1", "2", "3+", "2"]
    assert found.notes == [
        "label 'A' holds '3+' (of 2.png) beside numbers: they are taken for words"
    ]
    cells = [*map(str, range(30)), "abc"]
    assert column(cells, "categorical")[0][-1] == "abc"
    assert typed(pd.DataFrame({"A": cells}), {}, drop=["A"]).left_out == {
        "A": "31 values for 31 images"
    }
    assert (
        typed(pd.DataFrame({"A": cells}), {}, keep=["A"], drop=["A"]).table["A"].tolist() == cells
    )


@pytest.mark.parametrize(
    ("cells", "read", "said"),
    [
        (["1,234", "12,345.5", "999"], [1234, 12345.5, 999], "commas between thousands"),
        (["1,5", "0,25", "3"], [1.5, 0.25, 3], "commas instead of a decimal point"),
        (["1,5", "x", "3"], ["1,5", "x", "3"], "taken for words"),
        (["+3", "-4", ".5", "1e2"], [3, -4, 0.5, 100], ""),
        (["True", "false", None, "TRUE"], [1, 0, None, 1], ""),
        ([True, None, False], [1, None, 0], ""),
        ([1, "1", None, 2.5], [1, 1, None, 2.5], ""),
        ([decimal.Decimal("20.5"), decimal.Decimal(3)], [20.5, 3], ""),
        ([b"Ann", b"Bob", None], ["Ann", "Bob", None], ""),
        (["yes", "no", "yes"], ["yes", "no", "yes"], ""),
    ],
)
def test_numbers_are_numbers_however_they_are_written(
    cells: list[Any], read: list[Any], said: str
) -> None:
    result, found = column(cells, dtype=object)
    assert result == read
    assert said in "".join(found.notes)
    assert bool(said) == bool(found.notes)


def test_all_spellings_of_yes_and_no_fit_a_binary_label() -> None:
    assert column(["yes", "No", "on", "OFF", "1", "0", "TRUE", "", "unknown"], "binary")[0] == [
        1,
        0,
        1,
        0,
        1,
        0,
        1,
        None,
        None,
    ]
    assert column(["-1", "1", "-1"], "binary")[0] == [-1, 1, -1]


def test_long_numbers_lose_no_digit() -> None:
    for gap in ([], [""]):
        read, _ = column(["20170109142408075", "20170109142408076", *gap], "identity")
        assert [str(value) for value in read[:2]] == ["20170109142408075", "20170109142408076"]
    assert column(["1" * 30, "2" * 30], "identity")[0] == ["1" * 30, "2" * 30]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([[1], [2]], "lists or objects"),
        ([{"a": 1}, None], "lists or objects"),
        ([np.zeros(2), np.ones(2)], "lists or objects"),
        ([b"\xff\xd8 a picture", None], "bytes"),
        ([b"x" * 999], "bytes"),
        ([datetime.date(2020, 1, 2)], "dates"),
        (["2020-01-02", "2021-12-31T10:00"], "dates"),
        (["31.12.2020", "1.1.1999"], "dates"),
        ([f"id{number}" for number in range(60)], "60 values for 60 images"),
        ([uuid.UUID(int=number) for number in range(60)], "60 values for 60 images"),
        ([*range(58), 3, 4], "58 values for 60 images"),
        (
            [number // 2 for number in range(2 * values.MOST_CLASSES + 2)],
            "1001 values, too many for classes",
        ),
    ],
)
def test_columns_that_are_no_labels_are_left_out_and_told(cells: list[Any], reason: str) -> None:
    _, found = column(cells, dtype=object)
    assert found.left_out == {"A": reason}
    assert found.notes == [
        f"1 columns are no labels (A: {reason}); pack.keep or a recipe's kinds can keep them"
    ]
    if reason in ("bytes", "lists or objects"):
        with pytest.raises(UserError, match=rf"label 'A' holds {reason}; no kind takes them"):
            column(cells, "categorical", object)


def test_columns_of_other_types_are_read_or_left_out() -> None:
    table = pd.DataFrame(
        {
            "When": pd.to_datetime(["2020-01-02", "2021-01-02"]),
            "Hair": pd.Categorical(["fair", None]),
            "Age": pd.Categorical([3, 4]),
            "Maybe": pd.array([True, None], "boolean"),
            "Count": pd.array([5, None], "Int64"),
        }
    )
    found = typed(table, {})
    assert found.left_out == {"When": "dates"}
    assert found.table["Age"].tolist() == [3, 4]
    assert found.table["Hair"].tolist()[0] == "fair"
    assert found.table.isna().iloc[1].tolist() == [
        True,
        False,
        True,
        True,
    ]


def test_many_images_of_a_value_are_classes_and_a_kind_that_is_given_keeps_a_column() -> None:
    assert column([f"id{number // 2}" for number in range(60)])[0][:3] == ["id0", "id0", "id1"]
    assert len(column([f"id{number}" for number in range(60)], "categorical")[0]) == 60
    assert len(column([f"{number}.5" for number in range(60)])[0]) == 60


def test_words_of_a_recipe_are_found_however_the_values_are_written() -> None:
    found = values.renamed(
        pd.Series(["01", " 2", "x", "Test ", None]), {1: "one", 2: "two", "test": "three"}
    )
    assert found.tolist()[:2] == ["one", "two"]
    assert found.isna().tolist() == [
        False,
        False,
        True,
        False,
        True,
    ]


def test_numbers_that_differ_by_leading_zeros_are_one_and_told() -> None:
    read, found = column(["7", "007", "8", "7"])
    assert read == [7, 7, 8, 7]
    assert found.notes == ["label 'A': '7' and '007' are one number"]
    assert not column(["07", "08", "1.0", "1"])[1].notes


def test_nullable_columns_become_plain_ones() -> None:
    for cells, dtype, read in (
        ([5, 2**60 + 1], "Int64", [5, 2**60 + 1]),
        ([True, None], "boolean", [1, None]),
    ):
        assert column(cells, dtype=dtype)[0] == read
    long, _ = column([2**60 + 1, None], dtype="Int64")
    assert long == [str(2**60 + 1), None]
