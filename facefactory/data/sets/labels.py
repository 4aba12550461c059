"""Label tables and their schema.

A label is binary, categorical, ordinal or identity (integers, -1 = missing), or real (NaN).
"""

import re
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import UserError
from facefactory.data.packing.values import MOST_CLASSES, texts
from facefactory.data.sets.index import stored
from facefactory.facts import Kind, Label

KINDS = get_args(Kind)  # all but the last have classes
LEAST_PEOPLE = 8  # on either side of a label, below which a score would be about those few
Schema = dict[str, Label]


def schema_of(table: pd.DataFrame, kinds: dict[str, Any]) -> Schema:
    """Kinds and classes of labels: `kinds` where given, else guessed.

    A column of 0 / 1 or -1 / 1 is binary; one of text or whole numbers categorical.

    `kinds` is name -> kind, or {kind, classes} for an order that is not the alphabet's. A guess of
    more than MOST_CLASSES is left out (such a column holds captions or addresses), and so are
    lists.
    """
    given: dict[str, dict[str, Any]] = {}
    for name, kind in kinds.items():
        given[name] = kind if isinstance(kind, dict) else {"kind": kind}
        if given[name].get("kind") not in KINDS:
            raise UserError(
                f"label {name!r} has kind {given[name].get('kind')!r}; "
                f"allowed are {', '.join(KINDS)}."
            )
        if name not in table:
            raise UserError(
                f"label {name!r} of the recipe is not in the table; "
                f"its columns are {', '.join(table.columns)}."
            )

    schema: Schema = {}
    for name in table.columns:
        values = table[name].dropna().infer_objects()
        if values.dtype == object and values.map(_is_list).any():
            continue
        column = _Column(name, values)
        kind = given[name]["kind"] if name in given else column.guess
        column.require(kind)
        if kind == "real":
            schema[name] = Label(kind)
            continue
        classes = column.classes(kind, given.get(name, {}).get("classes"))
        if name in given or len(classes) <= MOST_CLASSES:
            schema[name] = Label(kind, tuple(classes))
    return schema


def _is_list(value: Any) -> bool:
    return isinstance(value, list | dict | np.ndarray)


class _Column:
    """The values of a label, the missing ones left out."""

    def __init__(self, name: str, values: pd.Series) -> None:
        self.name = name
        self.values = values
        self.numeric = pd.api.types.is_numeric_dtype(values)
        self.whole = self.numeric and bool((values.astype(float) % 1 == 0).all())
        self.two = self.numeric and bool(values.isin([0, 1]).all() or values.isin([-1, 1]).all())

    @property
    def guess(self) -> Kind:
        """Its kind, where nobody gives one."""
        if self.two:
            return "binary"
        return "categorical" if self.whole or not self.numeric else "real"

    def require(self, kind: str) -> None:
        """UserError: its values are not of a kind."""
        holds = f"label {self.name!r} holds"
        if kind == "binary" and self.numeric and not self.two:
            listed = ", ".join(texts(self.values.drop_duplicates()).iloc[:5])
            raise UserError(f"{holds} {listed}; kind binary takes 0 / 1 or -1 / 1.")
        if kind in ("binary", "real") and not self.numeric and len(self.values):
            odd = self.values[pd.to_numeric(self.values, errors="coerce").isna()]
            where = repr(self.values.iloc[0])
            if len(odd):
                where = f"{odd.iloc[0]!r} (of {odd.index[0]})"
            raise UserError(
                f"{holds} {where}; kind {kind} takes numbers (binary: 0 / 1 or -1 / 1)."
            )
        if kind not in ("binary", "real") and self.numeric and not self.whole:
            raise UserError(
                f"{holds} fractions; kind {kind} takes whole numbers or text. "
                "Give kind real, or round them."
            )

    def classes(self, kind: str, ordered: list[Any] | None) -> list[str]:
        """Its classes, in the order that the recipe gives or their own.

        UserError: one that the recipe does not know.
        """
        classes = ["0", "1"]
        if kind != "binary":
            in_order = _by_number if kind == "ordinal" else _as_text
            values = self.values.drop_duplicates()
            classes = texts(values.sort_values(key=None if self.numeric else in_order)).tolist()
        if not ordered:
            return list(dict.fromkeys(classes))

        words = list(dict.fromkeys(map(str, ordered)))
        strange = set(classes) - set(words)
        if strange:
            raise UserError(
                f"label {self.name!r} holds {min(strange)!r}; "
                f"its classes are {', '.join(map(str, ordered))}."
            )
        return words


def _as_text(words: pd.Series) -> pd.Series:
    return words.astype(str)


def _by_number(words: pd.Series) -> pd.Series:
    """An order in which 9 comes before 10, also in `9+` and `grade 9`."""
    keys = [tuple(map(_sort_key, re.split(r"(\d+)", str(word)))) for word in words]
    ranks = {key: rank for rank, key in enumerate(sorted(keys))}
    return pd.Series([ranks[key] for key in keys], words.index)


def _sort_key(part: str) -> tuple[int, str]:
    """A part of a word as it is sorted: numbers by their value, after all that is none."""
    return (int(part), "") if part.isdecimal() else (-1, part)


def encode(table: pd.DataFrame, schema: Schema, files: Any) -> pd.DataFrame:
    """One row a file: class numbers (-1 = missing) and real labels (NaN = missing).

    They are in their `stored` types.
    """
    rows = table.reindex(files)
    encoded = dict[str, Any](file=files)
    for name, label in schema.items():
        column = rows[name]
        if label.kind == "real":
            real = column.to_numpy(np.float32)
            infinite = np.isinf(real)
            encoded[name] = np.where(infinite, np.nan, real) if infinite.any() else real
        elif label.kind == "binary":  # CelebA writes -1 / 1, most others 0 / 1
            codes = np.where(column.isna(), -1, (column > 0))
            encoded[name] = codes.astype(stored(label))
        else:
            numbers, values = column.factorize()
            codes = pd.Categorical(texts(pd.Series(values)), list(label.classes)).codes
            encoded[name] = np.append(codes, -1)[numbers].astype(stored(label))
    return pd.DataFrame(encoded, copy=False)


def people(table: pd.DataFrame, group: str | None) -> npt.NDArray[np.int64]:
    """A number per image that says whose it is.

    Without a group, or where it is unknown, each image stands alone.
    """
    return people_of(table[group].to_numpy() if group else None, len(table))


def people_of(column: npt.NDArray[np.int64] | None, count: int) -> npt.NDArray[np.int64]:
    """The same for `count` images from the column of their group, or from none."""
    alone = -1 - np.arange(count)
    return alone if column is None else np.where(column < 0, alone, column)


def countable(
    table: pd.DataFrame, schema: Schema, groups: npt.NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Per label with classes (identities aside): images and people per class.

    And whether a score makes sense.
    """
    facts: dict[str, dict[str, Any]] = {}
    for name, label in schema.items():
        if label.kind in ("identity", "real"):
            continue
        classes = list(label.classes)
        codes = table[name].to_numpy()
        images = []
        people_there = []
        few = []
        for code, word in enumerate(classes):
            members = codes == code
            images.append(int(members.sum()))
            people_there.append(len(np.unique(groups[members])))
            if people_there[-1] < LEAST_PEOPLE:
                few.append(f"{people_there[-1]} people have {word}")

        facts[name] = {
            "kind": label.kind,
            "classes": classes,
            "images": images,
            "people": people_there,
            "scored": not few,
        }
        if few:
            reason = f"{'; '.join(few)}; a score needs {LEAST_PEOPLE} on either side"
            facts[name]["reason"] = reason
    return facts
