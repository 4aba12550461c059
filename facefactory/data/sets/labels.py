"""Label tables and their schema: binary, categorical, ordinal, identity (integers, -1 = missing) and real (NaN)."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import UserError
from facefactory.data import Data
from facefactory.data.packing.values import MOST_CLASSES, texts
from facefactory.data.sets.index import stored

KINDS = ("binary", "categorical", "ordinal", "identity", "real")  # all but the last have classes
LEAST_PEOPLE = 8  # on either side of a label, below which a score would be about those few


def schema_of(table: pd.DataFrame, kinds: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> {kind, classes}: `kinds` where given, else guessed (0 / 1 or -1 / 1: binary; text or whole numbers: categorical).

    `kinds` is name -> kind, or {kind, classes} for an order that is not the alphabet's. A guess of more than MOST_CLASSES is
    left out (such a column holds captions or addresses), and so are lists.
    """
    given = {
        name: kind if isinstance(kind, dict) else {"kind": kind} for name, kind in kinds.items()
    }
    for name, entry in given.items():
        if entry.get("kind") not in KINDS:
            raise UserError(
                f"label {name!r} has kind {entry.get('kind')!r}; allowed are {', '.join(KINDS)}."
            )
        if name not in table:
            raise UserError(
                f"label {name!r} of the recipe is not in the table; its columns are {', '.join(table.columns)}."
            )
    schema: dict[str, dict[str, Any]] = {}
    for name in table.columns:
        present = table[name].dropna().infer_objects()
        if (
            present.dtype == object
            and present.map(lambda value: isinstance(value, list | dict | np.ndarray)).any()
        ):
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
            raise UserError(
                f"label {name!r} holds {where}; kind {kind} takes numbers (binary: 0 / 1 or -1 / 1)."
            )
        if kind not in ("binary", "real") and numeric and not whole:
            raise UserError(
                f"label {name!r} holds fractions; kind {kind} takes whole numbers or text. Give kind real, or round them."
            )
        classes = ["0", "1"] if kind == "binary" else []
        if kind not in ("binary", "real"):
            in_order = _by_number if kind == "ordinal" else _as_text
            values = present.drop_duplicates().sort_values(key=None if numeric else in_order)
            classes = list(dict.fromkeys(texts(values)))
        if ordered := given.get(name, {}).get("classes"):
            if strange := set(classes) - set(map(str, ordered)):
                raise UserError(
                    f"label {name!r} holds {min(strange)!r}; its classes are {', '.join(map(str, ordered))}."
                )
            classes = list(dict.fromkeys(map(str, ordered)))
        if name in given or len(classes) <= MOST_CLASSES:
            schema[name] = {"kind": kind} if kind == "real" else {"kind": kind, "classes": classes}
    return schema


def _as_text(words: pd.Series) -> pd.Series:
    return words.astype(str)


def _by_number(words: pd.Series) -> pd.Series:
    """An order in which 9 comes before 10, also in `9+` and `grade 9`."""
    parts = [re.split(r"(\d+)", str(word)) for word in words]
    keys = [
        [(int(part), "") if part.isdecimal() else (-1, part) for part in of_word]
        for of_word in parts
    ]
    ranks = {key: rank for rank, key in enumerate(sorted(map(tuple, keys)))}
    return pd.Series([ranks[tuple(key)] for key in keys], words.index)


def encode(table: pd.DataFrame, schema: dict[str, dict[str, Any]], files: Any) -> pd.DataFrame:
    """One row a file: class numbers (-1 = missing) and real labels (NaN = missing) in their `stored` types."""
    rows, encoded = table.reindex(files), dict[str, Any](file=files)
    for name, entry in schema.items():
        column = rows[name]
        if entry["kind"] == "real":
            real = column.to_numpy(np.float32)
            encoded[name] = (
                np.where(np.isinf(real), np.nan, real) if np.isinf(real).any() else real
            )
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
        raise UserError(
            f"data.weights={options.weights} are those of a label's classes; say which by data.balance=LABEL."
        )
    shares = tuple(float(options.weights.get(name, 1)) for name in classes)
    if (
        not set(options.weights) <= set(classes)
        or min(shares, default=0) < 0
        or (classes and not sum(shares))
    ):
        allowed = f"the classes of data.balance={options.balance}: {', '.join(classes) or 'none'}"
        raise UserError(
            f"data.weights={options.weights}: give numbers from 0 on, not all 0, to {allowed}."
        )
    return shares if options.weights else None


def people(table: pd.DataFrame, group: str | None) -> npt.NDArray[np.int64]:
    """A number per image that says whose it is; without a group, or where it is unknown, each image stands alone."""
    return people_of(table[group].to_numpy() if group else None, len(table))


def people_of(column: npt.NDArray[np.int64] | None, count: int) -> npt.NDArray[np.int64]:
    """The same for `count` images from the column of their group, or from none."""
    alone = -1 - np.arange(count)
    return alone if column is None else np.where(column < 0, alone, column)


def countable(
    table: pd.DataFrame, schema: dict[str, Any], groups: npt.NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Per label with classes (identities aside): images and people per class, and whether a score makes sense."""
    found = {}
    for name, entry in schema.items():
        if entry["kind"] in ("identity", "real"):
            continue
        classes = entry["classes"]
        members = [table[name].to_numpy() == number for number in range(len(classes))]
        heads = [len(np.unique(groups[its])) for its in members]
        few = [
            f"{n} people have {c}" for c, n in zip(classes, heads, strict=True) if n < LEAST_PEOPLE
        ]
        fact = {
            "kind": entry["kind"],
            "classes": classes,
            "images": [int(its.sum()) for its in members],
            "people": heads,
        }
        reason = (
            {"reason": f"{'; '.join(few)}; a score needs {LEAST_PEOPLE} on either side"}
            if few
            else {}
        )
        found[name] = fact | {"scored": not few} | reason
    return found
