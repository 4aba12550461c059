"""Label tables and their schema: binary, categorical, ordinal, identity (integers, -1 = missing) and real (NaN)."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import UserError

KINDS = ("binary", "categorical", "ordinal", "identity", "real")  # all but the last have classes
LEAST_PEOPLE = 8  # on either side of a label, below which a score would be about those few


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or TSV indexed by its first column, the image files; UserError: no such file, no table, or a file named twice."""
    if not path.is_file():
        raise UserError(f"no label table {path}; give pack.labels=PATH of a .csv whose first column is the file name.")
    try:
        table = pd.read_csv(path, sep=None, engine="python", encoding="utf-8-sig", dtype={0: str})
    except Exception as error:
        raise UserError(f"label table {path} is not readable as CSV: {error}") from None
    table = table.set_index(table.columns[0])
    table.index = table.index.astype(str).str.strip()
    if table.index.has_duplicates:
        raise UserError(f"label table {path} names {table.index[table.index.duplicated()][0]!r} twice; keep one row an image.")
    return table


def schema_of(table: pd.DataFrame, kinds: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Name -> {kind, classes}: `kinds` where given, else guessed (two values: binary; text or whole numbers: categorical)."""
    for name, kind in kinds.items():
        if kind not in KINDS:
            raise UserError(f"label {name!r} has kind {kind!r}; allowed are {', '.join(KINDS)}.")
        if name not in table:
            raise UserError(f"label {name!r} of the recipe is not in the table; its columns are {', '.join(table.columns)}.")
    schema: dict[str, dict[str, Any]] = {}
    for name in table.columns:
        present = table[name].dropna()
        values = sorted(present.unique().tolist())
        numeric = pd.api.types.is_numeric_dtype(present)
        whole = numeric and bool((present == present.round()).all())
        guess = "binary" if numeric and set(values) <= {-1, 0, 1} else "categorical" if whole or not numeric else "real"
        kind = kinds.get(name, guess)
        if kind in ("binary", "real") and not numeric and len(present):
            raise UserError(f"label {name!r} holds {values[0]!r}; kind {kind} takes numbers (binary: 0 / 1 or -1 / 1).")
        if kind not in ("binary", "real") and numeric and not whole:
            raise UserError(
                f"label {name!r} holds fractions; kind {kind} takes whole numbers or text. Give kind real, or round them."
            )
        classes = ["0", "1"] if kind == "binary" else [str(int(value) if numeric else value) for value in values]
        schema[name] = {"kind": kind} if kind == "real" else {"kind": kind, "classes": classes}
    return schema


def encode(table: pd.DataFrame, schema: dict[str, dict[str, Any]], files: list[str]) -> pd.DataFrame:
    """One row a file: class numbers as int32 (-1 = missing), real labels as float32 (NaN = missing)."""
    rows, encoded = table.reindex(files), pd.DataFrame({"file": files})
    for name, entry in schema.items():
        column = rows[name]
        if entry["kind"] == "real":
            encoded[name] = column.to_numpy(np.float32)
        elif entry["kind"] == "binary":  # CelebA writes -1 / 1, most others 0 / 1
            encoded[name] = np.where(column.isna(), -1, (column.astype(float) > 0)).astype(np.int32)
        else:  # a column of whole numbers with gaps is one of floats
            texts = column.map(lambda value: str(int(value) if isinstance(value, int | float) else value), na_action="ignore")
            encoded[name] = pd.Categorical(texts, entry["classes"]).codes.astype(np.int32)
    return encoded


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
