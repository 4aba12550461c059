"""Label tables and their schema: binary, categorical, ordinal, identity (integers, -1 = missing) and real (NaN)."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import UserError
from facefactory.data import Data
from facefactory.data.index import stored
from facefactory.data.sources import safe
from facefactory.data.sources.folder import SUFFIXES

KINDS = ("binary", "categorical", "ordinal", "identity", "real")  # all but the last have classes
LEAST_PEOPLE = 8  # on either side of a label, below which a score would be about those few
MISSING = ["", "NA", "N/A", "NaN", "nan", "null"]  # not None: it is a class, e.g. of glasses
BOOLEANS = {True: ["1", "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"]}
BOOLEANS |= {False: ["0", "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"]}
MOST_CLASSES = 1000  # of a label whose kind is guessed: more are names, addresses or captions


def read_table(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A label table indexed by its first column, the image files: parquet, CSV, TSV, or columns with any white space between.

    A first line that is one number counts the rows (CelebA); a header may leave out the first column. `columns` are the names
    where the file has no header. UserError: no such file, no table, cut short, or a file named twice.
    """
    if not path.is_file():
        raise UserError(f"no label table {path}; give pack.labels=PATH of a .csv whose first column is the file name.")
    try:
        table = pd.read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path, columns)
        if table.index.name or not pd.api.types.is_integer_dtype(table.index):  # a parquet table that pandas wrote
            table = table.reset_index()
        table = table.set_index(table.columns[0])
        if not len(table):
            raise ValueError("it has no rows")
    except Exception as error:
        raise UserError(f"label table {path} is not readable as CSV (UTF-8) or parquet: {' '.join(str(error).split())}") from None
    table.index = pd.Index([safe(str(name).strip(), path) for name in table.index])
    if table.index.has_duplicates:
        raise UserError(f"label table {path} names {table.index[table.index.duplicated()][0]!r} twice; keep one row an image.")
    return table


def _read_text(path: Path, columns: list[str] | None) -> pd.DataFrame:
    with open(path, encoding="utf-8-sig") as stream:
        lines = [stream.readline() for _ in range(3)]
    counted = int(lines[0]) if lines[0].strip().isdigit() else None
    first, second = lines[1:] if counted is not None else lines[:2]
    mark = max(",;\t", key=first.count)
    if path.suffix.lower() == ".csv" and mark not in first:
        raise ValueError("its first line has no comma, so there is no label beside the file names")
    if mark not in first or (mark == "\t" and second.count(mark) not in (first.count(mark), first.count(mark) + 1)):
        mark = r"\s+"

    def cells(line: str) -> list[str]:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=mark), [])] if len(mark) == 1 else line.split()

    def is_row(line: str) -> bool:
        return bool(cells(line)) and cells(line)[0].lower().endswith(SUFFIXES)

    if columns is None and is_row(first):
        raise ValueError(f"its first line is that of the image {cells(first)[0]}; give the columns names in a line before it")
    header = columns is None or cells(first) == columns or cells(first)[1:] == columns[1:]
    names = cells(first) if columns is None else columns
    if len(cells(second)) == len(names) + 1 and columns is None:
        names = ["file", *names]
    if columns and (len(cells(second)) not in (0, len(names)) or (not header and is_row(second) and not is_row(first))):
        raise ValueError(f"it begins with {first.strip()!r}, {second.strip()!r}: the recipe's columns {columns} do not fit")
    skip, form = (counted is not None) + header, {"encoding": "utf-8-sig", "skipinitialspace": True, "low_memory": False}
    form |= {"decimal": ","} if mark == ";" and re.search(r"\d,\d", second) else {}
    known = {"names": names, "index_col": False, "dtype": {names[0]: str}, "keep_default_na": False, "na_values": MISSING}
    table = pd.read_csv(path, sep=mark, header=None, skiprows=skip, **form, **known)  # type: ignore[call-overload]
    if "" in names[1:] and table.pop("").notna().any():  # else a comma at the end of each line
        raise ValueError("a column with values has no name")
    if counted is not None and counted != len(table):
        raise ValueError(f"it begins with a count of {counted} and holds {len(table)} rows, so it was cut")
    return table


def read_tables(specs: list[dict[str, Any]], top: Path, get: str | None = None) -> pd.DataFrame:
    """The tables of a recipe as one: those with the same columns below each other, others side by side.

    A spec is {file: place below `top` (or several: the first that exists), columns, optional}. UserError: none exists;
    `get` then says where the set comes from.
    """
    merged: pd.DataFrame | None = None
    for spec in specs:
        places = [spec["file"]] if isinstance(spec["file"], str) else spec["file"]
        path = next((top / place for place in places if (top / place).is_file()), None)
        if path is None and spec.get("optional"):
            continue
        if path is None and get and not Path(places[0]).is_absolute():  # not pack.labels
            raise UserError(f"below {top} there is no label table {' or '.join(places)}. To get the set: {get}")
        table = read_table(path or top / places[0], spec.get("columns"))
        if merged is not None and set(merged.columns) == set(table.columns):
            merged = pd.concat([merged, table])
        elif merged is not None:
            merged = merged.join(table[table.columns.difference(merged.columns, sort=False)], how="outer")
        else:
            merged = table
    if merged is not None and merged.index.has_duplicates:
        twice = merged.index[merged.index.duplicated()][0]
        raise UserError(
            f"{twice!r} is in two label tables with the same columns: {', '.join(merged.columns)}; keep one row an image."
        )
    return pd.DataFrame() if merged is None else merged


def texts(column: pd.Series) -> pd.Series:
    """Values as classes are written: whole numbers without a point (a column with gaps is one of floats)."""

    def text(value: Any) -> str:
        return str(int(value)) if isinstance(value, int | float | np.number) and float(value) % 1 == 0 else str(value)

    return column.map(text, na_action="ignore")


def spelled(words: dict[Any, Any]) -> dict[str, Any]:
    """Value -> word, with values as classes are written: YAML reads true, yes and on as one value."""
    found: dict[str, Any] = {}
    for value, word in words.items():
        found |= dict.fromkeys(BOOLEANS[value] if isinstance(value, bool) else [str(value)], word)
    return found


def schema_of(table: pd.DataFrame, kinds: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> {kind, classes}: `kinds` where given, else guessed (0 / 1 or -1 / 1: binary; text or whole numbers: categorical).

    `kinds` is name -> kind, or {kind, classes} for an order that is not the alphabet's. A guess of more than MOST_CLASSES is
    left out (such a column holds captions or addresses), and so are lists.
    """
    given = {name: kind if isinstance(kind, dict) else {"kind": kind} for name, kind in kinds.items()}
    for name, entry in given.items():
        if entry.get("kind") not in KINDS:
            raise UserError(f"label {name!r} has kind {entry.get('kind')!r}; allowed are {', '.join(KINDS)}.")
        if name not in table:
            raise UserError(f"label {name!r} of the recipe is not in the table; its columns are {', '.join(table.columns)}.")
    schema: dict[str, dict[str, Any]] = {}
    for name in table.columns:
        present = table[name].dropna().infer_objects()
        if present.dtype == object and present.map(lambda value: isinstance(value, list | dict | np.ndarray)).any():
            continue
        numeric = pd.api.types.is_numeric_dtype(present)
        whole = numeric and bool((present.astype(float) % 1 == 0).all())
        guess = "categorical" if whole or not numeric else "real"
        two = numeric and any(present.isin(pair).all() for pair in ([0, 1], [-1, 1]))
        kind = given.get(name, {"kind": "binary" if two else guess})["kind"]
        if kind == "binary" and numeric and not two:
            held = ", ".join(texts(present.drop_duplicates()).iloc[:5])
            raise UserError(f"label {name!r} holds {held}; kind binary takes 0 / 1 or -1 / 1.")
        if kind in ("binary", "real") and not numeric and len(present):
            odd = present[pd.to_numeric(present, errors="coerce").isna()]
            where = f"{odd.iloc[0]!r} (of {odd.index[0]})" if len(odd) else repr(present.iloc[0])
            raise UserError(f"label {name!r} holds {where}; kind {kind} takes numbers (binary: 0 / 1 or -1 / 1).")
        if kind not in ("binary", "real") and numeric and not whole:
            raise UserError(
                f"label {name!r} holds fractions; kind {kind} takes whole numbers or text. Give kind real, or round them."
            )
        classes = ["0", "1"] if kind == "binary" else []
        if kind not in ("binary", "real"):
            values = present.drop_duplicates().sort_values(key=None if numeric else lambda words: words.astype(str))
            classes = list(dict.fromkeys(texts(values)))
        if ordered := given.get(name, {}).get("classes"):
            if strange := set(classes) - set(map(str, ordered)):
                raise UserError(f"label {name!r} holds {min(strange)!r}; its classes are {', '.join(map(str, ordered))}.")
            classes = list(dict.fromkeys(map(str, ordered)))
        if name in given or len(classes) <= MOST_CLASSES:
            schema[name] = {"kind": kind} if kind == "real" else {"kind": kind, "classes": classes}
    return schema


def encode(table: pd.DataFrame, schema: dict[str, dict[str, Any]], files: Any) -> pd.DataFrame:
    """One row a file: class numbers (-1 = missing) and real labels (NaN = missing) in their `stored` types."""
    rows, encoded = table.reindex(files), dict[str, Any](file=files)
    for name, entry in schema.items():
        column = rows[name]
        if entry["kind"] == "real":
            real = column.to_numpy(np.float32)
            encoded[name] = np.where(np.isinf(real), np.nan, real) if np.isinf(real).any() else real
        elif entry["kind"] == "binary":  # CelebA writes -1 / 1, most others 0 / 1
            encoded[name] = np.where(column.isna(), -1, (column > 0)).astype(stored(entry))
        else:
            numbers, values = column.factorize()
            known = pd.Categorical(texts(pd.Series(values)), entry["classes"]).codes
            encoded[name] = np.append(known, -1)[numbers].astype(stored(entry))
    return pd.DataFrame(encoded, copy=False)


def weights(options: Data, classes: list[str]) -> tuple[float, ...] | None:
    """The share of each class of data.balance in what is drawn; None: equal ones. UserError: data.weights does not fit them."""
    if options.weights and not options.balance:
        raise UserError(f"data.weights={options.weights} are those of a label's classes; say which by data.balance=LABEL.")
    shares = tuple(float(options.weights.get(name, 1)) for name in classes)
    if not set(options.weights) <= set(classes) or min(shares, default=0) < 0 or (classes and not sum(shares)):
        allowed = f"the classes of data.balance={options.balance}: {', '.join(classes) or 'none'}"
        raise UserError(f"data.weights={options.weights}: give numbers from 0 on, not all 0, to {allowed}.")
    return shares if options.weights else None


def people(table: pd.DataFrame, group: str | None) -> npt.NDArray[np.int64]:
    """A number per image that says whose it is; without a group, or where it is unknown, each image stands alone."""
    alone = -1 - np.arange(len(table))
    found = table[group].to_numpy() if group else alone
    return np.where(found < 0, alone, found)


def countable(table: pd.DataFrame, schema: dict[str, Any], groups: npt.NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    """Per label with classes (identities aside): images and people per class, and whether a score makes sense."""
    found = {}
    for name, entry in schema.items():
        if entry["kind"] in ("identity", "real"):
            continue
        classes = entry["classes"]
        members = [table[name].to_numpy() == number for number in range(len(classes))]
        heads = [len(np.unique(groups[its])) for its in members]
        few = [f"{n} people have {c}" for c, n in zip(classes, heads, strict=True) if n < LEAST_PEOPLE]
        fact = {"kind": entry["kind"], "classes": classes, "images": [int(its.sum()) for its in members], "people": heads}
        reason = {"reason": f"{'; '.join(few)}; a score needs {LEAST_PEOPLE} on either side"} if few else {}
        found[name] = fact | {"scored": not few} | reason
    return found
