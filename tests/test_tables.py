"""Label tables of every form that people have, and which of their rows names which image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from facefactory import UserError
from facefactory.data import Pack
from facefactory.data.packing import recipes, tables, values
from facefactory.data.sets import labels


def joined(
    text: str | bytes, files: list[str], path: Path, root: Path | None = None
) -> tables.Table:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return tables.read_tables([{"file": str(path)}], path.parent, tables.Images(files, root))


def read(text: str | bytes, files: list[str], path: Path) -> dict[str, list[Any]]:
    """Label -> codes, one a file."""
    typed = values.typed(joined(text, files, path).rows, {})
    schema = labels.schema_of(typed.table, {})
    encoded = labels.encode(typed.table, schema, files)
    return {name: encoded[name].tolist() for name in schema}


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile,A\na.png,1\nb.png,0\n",
        "file,A\r\na.png,1\r\nb.png,0\r\n",
        "file\tA\na.png\t1\nb.png\t0\n",
    ],
)
def test_tables_with_bom_crlf_or_tabs_are_read(tmp_path: Path, text: str) -> None:
    assert read(text, ["b.png", "a.png"], tmp_path / "table.csv") == {"A": [0, 1]}


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
    assert read(text, ["002.jpg", "001.jpg"], tmp_path / "list_attr.txt") == {
        "Bald": [1, 0],
        "Male": [0, 1],
    }


def test_a_table_without_header_gets_its_names(tmp_path: Path) -> None:
    for text in (
        "000001.jpg 2880\n000002.jpg 2937\n",
        "image_id,identity\n000001.jpg,2880\n000002.jpg,2937\n",
    ):
        (tmp_path / "a.txt").write_text(text)
        table = tables.read_table(tmp_path / "a.txt", ["image_id", "identity"]).rows
        assert table.to_dict("list") == {
            "image_id": ["000001.jpg", "000002.jpg"],
            "identity": ["2880", "2937"],
        }


def test_names_match_in_any_form_of_unicode(tmp_path: Path) -> None:
    assert read("file,A\nZoe\u0308.png,1\nb.png,0\n", ["Zo\u00eb.png"], tmp_path / "a.csv") == {
        "A": [1]
    }


def test_tables_of_the_same_columns_are_stacked_and_others_joined(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file,A\n1.png,x\n")
    (tmp_path / "b.csv").write_text("file,A\n2.png,y\n")
    (tmp_path / "c.csv").write_text("file,B\n2.png,7\n3.png,8\n")
    specs: list[dict[str, Any]] = [
        {"file": ["none.csv", "a.csv"]},
        {"file": "b.csv"},
        {"file": "c.csv"},
    ]
    images = tables.Images(["1.png", "2.png", "3.png"])
    optional = {"file": "d.csv", "columns": ["file", "D"], "optional": True}
    table = tables.read_tables([*specs, optional], tmp_path, images).rows
    assert table.loc["2.png"].tolist() == ["y", "7"]
    assert table.index.tolist() == [
        "1.png",
        "2.png",
        "3.png",
    ]

    # one that is not there and must be
    with pytest.raises(UserError, match=r"no label table .*d\.csv"):
        tables.read_tables([{"file": "d.csv"}], tmp_path, images)
    with pytest.raises(
        UserError, match=r"no label table d\.csv or e\.csv\. To get the set: ask its authors"
    ):
        tables.read_tables(
            [{"file": ["d.csv", "e.csv"]}],
            tmp_path,
            images,
            "ask its authors",
        )
    with pytest.raises(UserError, match=r"no label table .*/d\.csv; give pack\.labels=PATH"):
        tables.read_tables(
            [{"file": str(tmp_path / "d.csv")}], tmp_path, images, "ask its authors"
        )


def test_what_spreadsheets_write_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.CSV").write_text("file;Age;Smile;\na.png;11,5;1;\nb.png;7,25;0;\n")
    table = tables.read_table(tmp_path / "a.CSV").rows
    assert table["Age"].tolist() == ["11.5", "7.25"]
    assert table.columns.tolist() == [
        "file",
        "Age",
        "Smile",
    ]


def test_columns_that_do_not_fit_their_table_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,Smile\na.png,1\nb.png,0\n")
    for columns in (["file", "Smile", "Hat"], ["file"], ["file", "Happy"]):
        with pytest.raises(UserError, match=r"the recipe's columns .* do not fit"):
            tables.read_table(tmp_path / "a.csv", columns)


def test_a_first_line_that_is_an_images_is_no_header(tmp_path: Path) -> None:
    for text in ("a.PNG,1\nb.PNG,0\n", "2\na.PNG 1\nb.PNG 0\n"):
        (tmp_path / "a.txt").write_text(text)
        with pytest.raises(
            UserError, match=r"first line is that of the image a\.PNG; give the columns names"
        ):
            tables.read_table(tmp_path / "a.txt")


@pytest.mark.parametrize("text", ["A", "file,A\n", "file,A\na.png,1,2,3\n", 'file,A\n"a.png,1\n'])
def test_what_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=r"a\.csv is not readable as CSV"):
        tables.read_table(tmp_path / "a.csv")


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("file,A\nZoë.png,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.csv is not readable as CSV \(UTF-8\)"):
        tables.read_table(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["file", None])
def test_a_parquet_table_whose_index_is_the_file(tmp_path: Path, name: str | None) -> None:
    made = pd.DataFrame({"A": [1, 0]}, index=pd.Index(["a.png", "b.png"], name=name))
    made.to_parquet(tmp_path / "a.parquet")
    assert tables.read_table(tmp_path / "a.parquet").rows.iloc[:, [0, 1]].to_numpy().tolist() == [
        ["a.png", 1],
        ["b.png", 0],
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_tables_of_other_encodings_that_show_themselves_are_read(
    tmp_path: Path, encoding: str
) -> None:
    text = "file;Hair\r\nZo\u00eb.png;dunkelbl\u00f6nd\r\nb.png;schwarz\r\n"
    found = joined(text.encode(encoding), ["b.png", "Zo\u00eb.png"], tmp_path / "a.csv")
    assert found.rows["Hair"].to_dict() == {"Zo\u00eb.png": "dunkelbl\u00f6nd", "b.png": "schwarz"}


def test_another_encoding_is_named_by_its_line_and_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"file,A\na.png,1\nZo\xeb.png,1\n")
    with pytest.raises(
        UserError, match=r"line 3 holds the byte 0xEB.*iconv -f WINDOWS-1252 -t UTF-8 'a\.csv'"
    ):
        tables.read_table(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (
            b"<!DOCTYPE html><html><head><title>Google Drive -\n Quota exceeded</title>",
            r"a web page \(Google Drive - Quota exceeded\)",
        ),
        (b" \n", "empty"),
        (b"\n<HTML>", "a web page, not the table"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"PK\x03\x04 a workbook", "save it as CSV"),
        (b"\x1f\x8b gzip", "unpack it"),
        (b'{"file": "a.png"}', "JSON"),
    ],
)
def test_what_came_instead_of_a_table_is_named(tmp_path: Path, start: bytes, said: str) -> None:
    (tmp_path / "labels.txt").write_bytes(start)
    with pytest.raises(UserError, match=rf"labels\.txt is .*{said}"):
        tables.read_table(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    "text",
    [
        "# LFW attributes v1\n#by somebody\nfile\tMale\tAge\na.png\t0.5\t3\nb.png\t-1\t4\n",
        "# LFW attributes v1\n#\tfile\tMale\tAge\na.png\t0.5\t3\nb.png\t-1\t4\n",
        "#file,Male,Age\na.png,0.5,3\nb.png,-1,4\n",
        "sep=;\nfile;Male;Age\na.png;0,5;3\nb.png;-1;4\n",
        '"sep=|"\nfile|Male|Age\na.png|0.5|3\nb.png|-1|4\n',
        "sep=;\nfile;Male;Age;Far\na.png;0,5;3;0,125\nb.png;-1;4;NA\n",
        '"file" "Male" "Age"\n"a.png" "0.5" "3"\n"b.png" "-1" "4"\n',
        "\n\nfile|Male|Age\na.png|0.5|3\nb.png|-1|4\n",
        "Male,Age\na.png,0.5,3\nb.png,-1,4\n",
        "file,Male,Age\na.png,0.5,3,\nb.png,-1,4,\n",
        ",file,Male,Age\n0,a.png,0.5,3\n1,b.png,-1,4\n",
        'file,"Ma\nle",Age\na.png,0.5,3\nb.png,-1,4\n',
    ],
)
def test_what_stands_before_and_around_the_rows_is_no_label(tmp_path: Path, text: str) -> None:
    found = joined(text, ["b.png", "a.png"], tmp_path / "a.txt").rows
    male = "Ma le" if "Ma\nle" in text else "Male"
    assert found[[male, "Age"]].to_dict("list") == {male: ["0.5", "-1"], "Age": ["3", "4"]}
    assert found.index.tolist() == ["a.png", "b.png"]


def test_columns_get_names_that_differ(tmp_path: Path) -> None:
    found = joined(
        "file,A,,A, A (2)\na.png,1,2,3,4\nb.png,5,6,7,8\n", ["a.png", "b.png"], tmp_path / "a.csv"
    )
    assert found.rows.loc["a.png"].to_dict() == {
        "A": "1",
        "column 3": "2",
        "A (3)": "3",
        "A (2)": "4",
    }
    assert [note.partition(": ")[2] for note in found.notes] == [
        "a column without a name is called 'column 3'",
        "two columns are called 'A'; the second is called 'A (3)'",
    ]


@pytest.mark.parametrize(
    "text", ["file,A\na.png,1,2\nb.png,1\nc.png,1,2,3\n", "file,A\na.png,1\nb.png,1,2\n"]
)
def test_cells_beyond_the_header_are_never_dropped(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"a\.csv is not readable"):
        joined(text, ["a.png", "b.png"], tmp_path / "a.csv")


def test_a_row_that_is_too_wide_is_named_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its line 5 has 3 cells, its header 2"):
        joined("# comment\nfile,A\na.png,1\nb.png,2\nc.png,3,4\n", ["a.png"], tmp_path / "a.csv")


def test_rows_without_a_file_name_are_counted(tmp_path: Path) -> None:
    text = "Image name,A\na.png,1\n,2\n,3\nnan.png,4\n"
    found = joined(text, ["a.png", "nan.png"], tmp_path / "a.csv")
    assert found.rows["A"].to_dict() == {"a.png": "1", "nan.png": "4"}
    assert found.notes == ["a.csv: 2 rows have no file name and are left out"]


# -- which row names which image -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("file,A\na.png,1\nb.png,2\n", ["x/a.png", "y/z/b.png"]),
        ("file,A\nold/x/a.png,1\nold/y/b.png,2\n", ["x/a.png", "y/b.png"]),
        ("file,A\n/data/faces/x/a.png,1\n/data/faces/y/b.png,2\n", ["a.png", "b.png"]),
        ("file,A\nC:\\data\\a.png,1\n.\\b.png,2\n", ["a.png", "b.png"]),
        ("file,A\na,1\nb,2\n", ["a.png", "b.jpg"]),
        ("file,A\na.JPG,1\nb.png,2\n", ["faces/A.png", "faces/b.png"]),
        ("usage,Image name,A\nTraining,a.png,1\nTest,b.png,2\n", ["a.png", "b.png"]),
        ("id,path,A\n0,set/x/a.png,1\n1,set/x/b.png,2\n", ["x/a.png", "x/b.png"]),
        ("Test,id,A\n1,a,1\n1,b,2\n", ["a.png", "b.png"]),
    ],
)
def test_images_are_found_by_their_table(tmp_path: Path, text: str, files: list[str]) -> None:
    found = joined(text, files, tmp_path / "a.csv")
    assert found.rows["A"].to_dict() == dict(zip(files, ["1", "2"], strict=True))


def test_an_exact_name_wins_and_endings_that_fit_two_are_told(tmp_path: Path) -> None:
    files = ["a.png", "x/a.png", "x/b.png", "y/b.png", "z/c.png"]
    found = joined("file,A\na.png,1\nb.png,2\nc.png,3\n", files, tmp_path / "a.csv")
    assert found.rows["A"].to_dict() == {"a.png": "1", "b.png": "2", "z/c.png": "3"}
    assert found.notes == [
        "a.csv: 1 rows are known by the ending of a name, e.g. c.png is z/c.png",
        "a.csv: 1 rows are unclear and left out, e.g. b.png fits x/b.png and y/b.png",
    ]
    with pytest.raises(
        UserError,
        match=r"2 rows are unclear, e\.g\. x/a\.png fits a\.png, as other rows; write whole places",
    ):
        joined("file,A\nx/a.png,1\ny/a.png,2\n", ["a.png"], tmp_path / "a.csv")


def test_the_roots_own_name_tells_rows_apart(tmp_path: Path) -> None:
    text = "file,A\ntrain/a.png,1\nval/a.png,2\n"
    found = joined(text, ["a.png"], tmp_path / "a.csv", tmp_path / "val")
    assert found.rows["A"].to_dict() == {"train/a.png": "1", "a.png": "2"}


def test_folders_that_differ_are_not_guessed(tmp_path: Path) -> None:
    found = joined(
        "file,A\nval/a.png,1\nval/b.png,2\n", ["train/a.png", "train/b.png"], tmp_path / "a.csv"
    )
    assert found.rows.index.tolist() == ["val/a.png", "val/b.png"]


def test_an_image_that_two_rows_name_is_refused(tmp_path: Path) -> None:
    for text in ("file,A\na.png,1\na.png,2\n", "file,A\na.png,1\n./a.png,2\n"):
        with pytest.raises(UserError, match=r"names 'a\.png' twice; keep one row an image"):
            joined(text, ["a.png"], tmp_path / "a.csv")


def test_words_that_are_no_file_names_may_come_again(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(b"")
    (tmp_path / "a.txt").write_text("person\tnumber\tMale\nAnn\t1\t0.5\nAnn\t2\t0.5\n")
    with pytest.raises(
        UserError,
        match=r"no row of .*a\.txt names an image; it begins with 'Ann', the images with 'a\.png'",
    ):
        recipes.plan(
            Pack(recipe="folder", root=str(tmp_path / "set"), labels=str(tmp_path / "a.txt"))
        )
