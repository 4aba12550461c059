"""What the columns of label tables become: kinds, classes, codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from facefactory import UserError
from facefactory.data.packing import tables
from facefactory.data.packing.values import MOST_CLASSES, typed
from facefactory.data.sets import labels


def encode(
    text: str, files: list[str], kinds: dict[str, str], path: Path
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    path.write_bytes(text.encode())
    table = tables.read_tables([{"file": str(path)}], path.parent, tables.Images(files)).rows
    table = typed(table, kinds).table
    schema = labels.schema_of(table, kinds)
    encoded = labels.encode(table, schema, files)
    return schema, {name: encoded[name].tolist() for name in schema}


def test_each_kind_is_encoded_and_missing_is_minus_one_or_nan(tmp_path: Path) -> None:
    text = "file,CelebA,Smile,Hair,Age,Who,Score\na.png,-1,1,fair,30,7,0.5\nb.png,1,,dark,9,12,\nc.png,,0,,,,1.5\n"
    kinds = {"Age": "ordinal", "Who": "identity"}
    schema, values = encode(
        text, ["a.png", "b.png", "c.png", "d.png"], kinds, tmp_path / "table.csv"
    )
    assert {name: entry.kind for name, entry in schema.items()} == {
        "CelebA": "binary",
        "Smile": "binary",
        "Hair": "categorical",
        "Age": "ordinal",
        "Who": "identity",
        "Score": "real",
    }

    # classes by number, else by word
    assert list(schema["Age"].classes) == ["9", "30"]
    assert list(schema["Hair"].classes) == [
        "dark",
        "fair",
    ]
    assert schema["Score"].classes == ()

    # values, and what is missing
    assert values["CelebA"] == [0, 1, -1, -1]
    assert values["Smile"] == [1, -1, 0, -1]
    assert values["Hair"] == [1, 0, -1, -1]
    assert values["Age"] == [1, 0, -1, -1]
    assert values["Who"] == [0, 1, -1, -1]
    assert values["Score"][0] == 0.5
    assert values["Score"][2] == 1.5
    assert np.isnan([values["Score"][i] for i in (1, 3)]).all()


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (["perhaps", "no"], "binary"),
        (["1", "2"], "binary"),
        (["low", "high"], "real"),
        (["1.5", "1.2"], "ordinal"),
        (["1.5", "1.2"], "categorical"),
    ],
)
def test_values_that_do_not_fit_their_kind_are_refused(
    tmp_path: Path, column: list[str], kind: str
) -> None:
    text = f"file,A\na.png,{column[0]}\nb.png,{column[1]}\n"
    with pytest.raises(UserError, match=r"'A'.*" + kind):
        encode(text, ["a.png", "b.png"], {"A": kind}, tmp_path / "table.csv")


def test_classes_of_a_recipe_keep_their_order_and_refuse_others(tmp_path: Path) -> None:
    kinds = {"Age": {"kind": "ordinal", "classes": ["3-9", "20-29", "more than 70"]}}
    text = "file,Age\na,20-29\nb,more than 70\nc,{}\n"
    schema, values = encode(
        text.format("3-9"),
        ["a", "b", "c"],
        kinds,
        tmp_path / "a.csv",
    )
    assert schema["Age"].entry == kinds["Age"]
    assert values["Age"] == [1, 2, 0]
    with pytest.raises(
        UserError, match=r"'Age' holds '03-Sep'; its classes are 3-9, 20-29, more than 70"
    ):
        encode(text.format("03-Sep"), ["a"], kinds, tmp_path / "a.csv")


def test_true_and_false_are_binary_and_captions_are_no_label(tmp_path: Path) -> None:
    rows = [
        f"{number},{number % 3 == 0},caption {number},{number}"
        for number in range(MOST_CLASSES + 1)
    ]
    text = "\n".join(["file,Test,Text,Who", *rows])
    schema, values = encode(
        text,
        ["0", "1", "none"],
        {"Who": "identity"},
        tmp_path / "a.csv",
    )
    assert {name: entry.kind for name, entry in schema.items()} == {
        "Test": "binary",
        "Who": "identity",
    }
    assert values["Test"] == [1, 0, -1]


def test_three_values_are_not_two_and_each_value_is_a_class_once(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"Turn": [-1, 0, 1], "Age": [1, "1", 2.5], "Box": [[1], None, [2]]},
        index=["a.png", "b.png", "c.png"],
    )
    schema = labels.schema_of(table, {})
    assert list(schema["Turn"].classes) == ["-1", "0", "1"]
    assert list(schema["Age"].classes) == ["1", "2.5"]
    assert "Box" not in schema
    assert labels.encode(table, schema, table.index)["Age"].tolist() == [0, 0, 1]


def test_ordered_words_are_ordered_by_the_numbers_in_them() -> None:
    table = pd.DataFrame({"Grade": ["10+", "9", "2b", "none", "9"]}, index=list("abcde"))
    schema = labels.schema_of(table, {"Grade": "ordinal"})
    assert list(schema["Grade"].classes) == ["2b", "9", "10+", "none"]
    assert labels.encode(table, schema, list("abcde"))["Grade"].tolist() == [2, 1, 0, 3, 1]
