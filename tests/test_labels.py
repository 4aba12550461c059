"""Label tables of every form that the public sets have, and what their columns become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from facefactory import UserError
from facefactory.data import labels


def encode(text: str, files: list[str], kinds: dict[str, str], path: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    path.write_bytes(text.encode())
    table = labels.read_table(path)
    schema = labels.schema_of(table, kinds)
    encoded = labels.encode(table, schema, files)
    return schema, {name: encoded[name].tolist() for name in schema}


@pytest.mark.parametrize(
    "text", ["\ufefffile,A\na.png,1\nb.png,0\n", "file,A\r\na.png,1\r\nb.png,0\r\n", "file\tA\na.png\t1\nb.png\t0\n"]
)
def test_tables_with_bom_crlf_or_tabs_are_read(tmp_path: Path, text: str) -> None:
    schema, values = encode(text, ["b.png", "a.png"], {}, tmp_path / "table.csv")
    assert schema == {"A": {"kind": "binary", "classes": ["0", "1"]}}
    assert values == {"A": [0, 1]}


def test_each_kind_is_encoded_and_missing_is_minus_one_or_nan(tmp_path: Path) -> None:
    text = "file,CelebA,Smile,Hair,Age,Who,Score\na.png,-1,1,fair,30,7,0.5\nb.png,1,,dark,9,12,\nc.png,,0,,,,1.5\n"
    kinds = {"Age": "ordinal", "Who": "identity"}
    schema, values = encode(text, ["a.png", "b.png", "c.png", "d.png"], kinds, tmp_path / "table.csv")
    assert {name: entry["kind"] for name, entry in schema.items()} == {
        "CelebA": "binary",
        "Smile": "binary",
        "Hair": "categorical",
        "Age": "ordinal",
        "Who": "identity",
        "Score": "real",
    }
    assert schema["Age"]["classes"] == ["9", "30"] and schema["Hair"]["classes"] == ["dark", "fair"]
    assert "classes" not in schema["Score"]
    assert values["CelebA"] == [0, 1, -1, -1]
    assert values["Smile"] == [1, -1, 0, -1]
    assert values["Hair"] == [1, 0, -1, -1]
    assert values["Age"] == [1, 0, -1, -1]
    assert values["Who"] == [0, 1, -1, -1]
    assert values["Score"][0] == 0.5 and values["Score"][2] == 1.5 and np.isnan([values["Score"][i] for i in (1, 3)]).all()


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (["yes", "no"], "binary"),
        (["1", "2"], "binary"),
        (["low", "high"], "real"),
        (["1.5", "1.2"], "ordinal"),
        (["1.5", "1.2"], "categorical"),
    ],
)
def test_values_that_do_not_fit_their_kind_are_refused(tmp_path: Path, column: list[str], kind: str) -> None:
    text = f"file,A\na.png,{column[0]}\nb.png,{column[1]}\n"
    with pytest.raises(UserError, match=r"'A'.*" + kind):
        encode(text, ["a.png", "b.png"], {"A": kind}, tmp_path / "table.csv")


@pytest.mark.parametrize(
    "text",
    [
        "2\nBald Male\n001.jpg -1 1\n002.jpg  1 -1\n",
        "\ufeff2\r\n Bald   Male \r\n001.jpg\t-1\t1\r\n002.jpg\t1\t-1\r\n",
        "Bald\tMale\n001.jpg -1 1\n002.jpg 1 -1\n",
        "image_id,Bald,Male\n001.jpg,-1,1\n002.jpg,1,-1",
        'image_id;Bald;Male\n"001.jpg";-1;1\n002.jpg;1;-1\n',
        "image_id, Bald, Male\n ./001.jpg , -1, 1\n002.jpg, 1, -1\n",
    ],
)
def test_celebas_count_line_header_and_white_space_are_read(tmp_path: Path, text: str) -> None:
    _, values = encode(text, ["002.jpg", "001.jpg"], {}, tmp_path / "list_attr.txt")
    assert values == {"Bald": [1, 0], "Male": [0, 1]}


def test_a_table_without_header_gets_its_names(tmp_path: Path) -> None:
    for text in ("000001.jpg 2880\n000002.jpg 2937\n", "image_id,identity\n000001.jpg,2880\n000002.jpg,2937\n"):
        (tmp_path / "a.txt").write_text(text)
        table = labels.read_table(tmp_path / "a.txt", ["image_id", "identity"])
        assert table["identity"].to_dict() == {"000001.jpg": 2880, "000002.jpg": 2937}


def test_file_names_stay_text_and_none_is_a_word(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file,Glasses,Age\n007,None,\n008,sun,5\n010,,NA\n")
    table = labels.read_table(tmp_path / "a.csv")
    assert table.index.tolist() == ["007", "008", "010"]
    assert table["Glasses"].dropna().tolist() == ["None", "sun"] and table["Age"].isna().tolist() == [True, False, True]


def test_names_match_in_any_form_of_unicode(tmp_path: Path) -> None:
    _, values = encode("file,A\nZoe\u0308.png,1\nb.png,0\n", ["Zo\u00eb.png"], {}, tmp_path / "a.csv")
    assert values == {"A": [1]}


def test_tables_of_the_same_columns_are_stacked_and_others_joined(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file,A\n1.png,x\n")
    (tmp_path / "b.csv").write_text("file,A\n2.png,y\n")
    (tmp_path / "c.csv").write_text("file,B\n2.png,7\n3.png,8\n")
    specs: list[dict[str, Any]] = [{"file": ["none.csv", "a.csv"]}, {"file": "b.csv"}, {"file": "c.csv"}]
    table = labels.read_tables([*specs, {"file": "d.csv", "columns": ["file", "D"], "optional": True}], tmp_path)
    assert table.loc["2.png"].tolist() == ["y", 7] and table.index.tolist() == ["1.png", "2.png", "3.png"]
    with pytest.raises(UserError, match=r"no label table .*d\.csv"):
        labels.read_tables([{"file": "d.csv"}], tmp_path)
    with pytest.raises(UserError, match=r"no label table d\.csv or e\.csv\. To get the set: ask its authors"):
        labels.read_tables([{"file": ["d.csv", "e.csv"]}], tmp_path, "ask its authors")
    with pytest.raises(UserError, match=r"no label table .*/d\.csv; give pack\.labels=PATH"):
        labels.read_tables([{"file": str(tmp_path / "d.csv")}], tmp_path, "ask its authors")


def test_what_spreadsheets_write_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.CSV").write_text("file;Age;Smile;\na.png;11,5;1;\nb.png;7,25;0;\n")
    table = labels.read_table(tmp_path / "a.CSV")
    assert table["Age"].tolist() == [11.5, 7.25] and table.columns.tolist() == ["Age", "Smile"]


def test_columns_that_do_not_fit_their_table_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,Smile\na.png,1\nb.png,0\n")
    for columns in (["file", "Smile", "Hat"], ["file"], ["file", "Happy"]):
        with pytest.raises(UserError, match=r"the recipe's columns .* do not fit"):
            labels.read_table(tmp_path / "a.csv", columns)


def test_yamls_booleans_are_the_words_of_tables() -> None:
    spelled = labels.spelled({True: "ja", False: "nein", 3: "drei", "x": "y"})
    assert [spelled[value] for value in ("yes", "1", "True", "NO", "3", "x")] == ["ja", "ja", "ja", "nein", "drei", "y"]


def test_a_first_line_that_is_an_images_is_no_header(tmp_path: Path) -> None:
    for text in ("a.PNG,1\nb.PNG,0\n", "2\na.PNG 1\nb.PNG 0\n"):
        (tmp_path / "a.txt").write_text(text)
        with pytest.raises(UserError, match=r"first line is that of the image a\.PNG; give the columns names"):
            labels.read_table(tmp_path / "a.txt")


@pytest.mark.parametrize("text", ["", "file,A\n", "file,A\na.png,1,2,3\n", 'file,A\n"a.png,1\n'])
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=r"a\.csv is not readable as CSV"):
        labels.read_table(tmp_path / "a.csv")


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("file,A\nZoë.png,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.csv is not readable as CSV \(UTF-8\)"):
        labels.read_table(tmp_path / "a.csv")


def test_classes_of_a_recipe_keep_their_order_and_refuse_others(tmp_path: Path) -> None:
    kinds = {"Age": {"kind": "ordinal", "classes": ["3-9", "20-29", "more than 70"]}}
    text = "file,Age\na,20-29\nb,more than 70\nc,{}\n"
    schema, values = encode(text.format("3-9"), ["a", "b", "c"], kinds, tmp_path / "a.csv")
    assert schema["Age"] == kinds["Age"] and values["Age"] == [1, 2, 0]
    with pytest.raises(UserError, match=r"'Age' holds '03-Sep'; its classes are 3-9, 20-29, more than 70"):
        encode(text.format("03-Sep"), ["a"], kinds, tmp_path / "a.csv")


def test_true_and_false_are_binary_and_captions_are_no_label(tmp_path: Path) -> None:
    rows = [f"{number},{number % 3 == 0},caption {number},{number}" for number in range(labels.MOST_CLASSES + 1)]
    text = "\n".join(["file,Test,Text,Who", *rows])
    schema, values = encode(text, ["0", "1", "none"], {"Who": "identity"}, tmp_path / "a.csv")
    assert {name: entry["kind"] for name, entry in schema.items()} == {"Test": "binary", "Who": "identity"}
    assert values["Test"] == [1, 0, -1]


def test_three_values_are_not_two_and_each_value_is_a_class_once(tmp_path: Path) -> None:
    table = pd.DataFrame({"Turn": [-1, 0, 1], "Age": [1, "1", 2.5], "Box": [[1], None, [2]]}, index=["a.png", "b.png", "c.png"])
    schema = labels.schema_of(table, {})
    assert schema["Turn"]["classes"] == ["-1", "0", "1"] and schema["Age"]["classes"] == ["1", "2.5"] and "Box" not in schema
    assert labels.encode(table, schema, table.index)["Age"].tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["file", None])
def test_a_parquet_table_whose_index_is_the_file(tmp_path: Path, name: str | None) -> None:
    made = pd.DataFrame({"A": [1, 0]}, index=pd.Index(["a.png", "b.png"], name=name))
    made.to_parquet(tmp_path / "a.parquet")
    assert labels.read_table(tmp_path / "a.parquet")["A"].to_dict() == {"a.png": 1, "b.png": 0}


def test_whole_numbers_with_gaps_are_written_without_a_point() -> None:
    assert labels.texts(pd.Series([3.0, np.nan, 12.0])).tolist()[::2] == ["3", "12"]
