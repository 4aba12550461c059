"""What the columns of label tables hold: numbers or words, and which values are none."""

import re
import unicodedata
from collections.abc import Container
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import UserError

# none, whatever their case; not the word none: it is a class, e.g. of glasses
MISSING = ("", "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "null", r"\n", "?")
# none among numbers and among people; elsewhere they may be classes
VAGUE = (
    "unknown",
    "unk",
    "none",
    "undefined",
    "missing",
    "not available",
    "-",
    "--",
    "---",
    ".",
    "#value!",
    "#ref!",
)
BOOLEANS = {
    True: ["1", "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"],
    False: ["0", "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"],
}
MOST_CLASSES = 1000  # of a label whose kind is guessed: more are names, addresses or captions
OWN_VALUE = 0.9  # a value of its own for such a share of the images is an id
FEW = 20  # from so many values on
MANY = 10  # different numbers, from which on a word among them is a mistake
LONGEST = 200  # bytes of a word

# How values are written
DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}( .*)?")
INTEGER = re.compile(r"[+-]?\d{1,40}")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?")
FRACTION = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass
class Typed:
    """A table whose columns are numbers, or words without blanks around them; NaN = missing."""

    table: pd.DataFrame
    left_out: dict[str, str] = field(default_factory=dict)  # column that is no label: why
    notes: list[str] = field(default_factory=list)  # how values were read, where it is not plain


@dataclass(frozen=True)
class _Given:
    """What a recipe says of a label."""

    kind: str | None = None
    classes: tuple[str, ...] = ()
    dropped: bool = False


def typed(
    table: pd.DataFrame,
    kinds: dict[str, Any],
    keep: Container[str] = (),
    drop: Container[str] = (),
) -> Typed:
    """Labels as their sources write them -> numbers and words.

    Words that differ by blanks or case are one. Left out are lists, bytes, dates, and columns
    with a value of its own for nearly every image.

    Args:
        table: one column a label.
        kinds: name -> kind, or {kind, classes}; such labels are never left out.
        keep: labels that are not left out either.
        drop: labels that nobody wants: what is odd in them is no error.

    Raises:
        UserError: a word among many numbers, or values that the kind that is given cannot take.
    """
    result = Typed(pd.DataFrame(index=table.index))
    columns = dict[str, pd.Series]()
    for name in table.columns:
        given = _given(kinds.get(name), name in drop)
        column, reason = _column(str(name), table[name], given, result.notes)
        if reason and given.kind:
            way = "Take it out of the recipe's kinds"
            raise UserError(f"label {name!r} holds {reason}; no kind takes them. {way}.")
        if not reason and not given.kind and name not in keep:
            reason = _no_label(column)
        if reason:
            result.left_out[name] = reason
        else:
            columns[name] = column
    result.table = pd.DataFrame(columns, index=table.index, copy=False)

    if result.left_out:
        reasons = [f"{name}: {reason}" for name, reason in result.left_out.items()]
        some = "; ".join(reasons[:5])
        way = "pack.keep or a recipe's kinds can keep them"
        result.notes.append(f"{len(reasons)} columns are no labels ({some}); {way}")
    return result


def _given(entry: Any, dropped: bool) -> _Given:
    """From a kind, {kind, classes} or None."""
    if not isinstance(entry, dict):
        return _Given(entry, (), dropped)
    classes = tuple(map(str, entry.get("classes") or ()))
    return _Given(entry.get("kind"), classes, dropped)


def _no_label(column: pd.Series) -> str:
    """Why a column is no label although nobody said so."""
    present = column.dropna()
    numeric = pd.api.types.is_numeric_dtype(present)
    if numeric:
        fractions = present.head(1000).astype(float) % 1
        if (fractions != 0).any():
            return ""
    different = present.unique()
    if len(different) >= FEW and len(different) >= OWN_VALUE * len(present):
        return f"{len(different)} values for {len(present)} images"
    if len(different) > MOST_CLASSES:
        return f"{len(different)} values, too many for classes"
    if len(different) and not numeric and all(DATE.fullmatch(str(word)) for word in different):
        return "dates"
    return ""


@dataclass
class _Values:
    """The different values of a column."""

    name: str
    column: pd.Series
    codes: npt.NDArray[np.int64]  # number of each row's value, -1 = none
    written: list[Any]  # as the source has them
    words: list[str]  # without blanks around them
    missing: npt.NDArray[np.bool_]

    def rows(self, place: int) -> npt.NDArray[np.int64]:
        """Those with that value."""
        return np.flatnonzero(self.codes == place)


def _column(
    name: str, column: pd.Series, given: _Given, notes: list[str]
) -> tuple[pd.Series, str]:
    """A column as numbers or words, or why it is no label."""
    # Types of numpy and pandas that say what they hold
    is_complex = pd.api.types.is_complex_dtype(column)
    if pd.api.types.is_numeric_dtype(column) and not is_complex:  # of bools too
        if not pd.api.types.is_extension_array_dtype(column):
            return column, ""
        column = column.astype(column.dtype.type if column.notna().all() else object)
        return _column(name, column, given, notes)
    if isinstance(column.dtype, pd.CategoricalDtype):
        plain = column.cat.categories.dtype
        column = column.astype(plain if column.notna().all() else object)
        return _column(name, column, given, notes)
    if column.dtype == object:
        column, reason = _single(column)
        if reason:
            return column, reason
    elif not isinstance(column.dtype, pd.StringDtype):
        return column, "dates" if "date" in str(column.dtype) else f"values of type {column.dtype}"

    # Text: each different value is looked at once
    codes, different = column.factorize()
    words = list(map(_word, different))
    missing = np.array([word.casefold() in MISSING for word in words], bool)
    values = _Values(name, column, codes, list(different), words, missing)
    if given.kind == "identity":
        _vague_is_missing(values, given, notes)
    numbers = _numbers(values, given, notes)
    if numbers is not None:
        return numbers, ""
    return _of_words(values, given, notes), ""


def _single(column: pd.Series) -> tuple[pd.Series, str]:
    """A column of Python's objects as one of words and numbers, or what it holds instead."""
    present = column.dropna()
    types = set(present.map(type))
    if _any_is(types, list | tuple | dict | set | np.ndarray):
        return column, "lists or objects"
    if _any_is(types, date | time | timedelta):
        return column, "dates"
    if _any_is(types, bytes | bytearray | memoryview):
        try:
            words = present.map(_decoded)
        except UnicodeDecodeError:
            return column, "bytes"
        if words.map(len).max() > LONGEST:
            return column, "bytes"
        return words.reindex(column.index), ""
    if all(issubclass(kind, str | bool | int | float | np.generic) for kind in types):
        return column, ""
    return present.map(str).reindex(column.index), ""  # decimals, UUIDs


def _any_is(types: set[type], kind: Any) -> bool:
    return any(issubclass(each, kind) for each in types)


def _decoded(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _word(value: Any) -> str:
    """Composed Unicode, single blanks."""
    text = str(value)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def _folded(word: str) -> str:
    return " ".join(word.split()).casefold()


def _number(word: str) -> int | float | None:
    if INTEGER.fullmatch(word):
        return int(word)
    return float(word) if FRACTION.fullmatch(word) else None


def _vague_is_missing(values: _Values, given: _Given, notes: list[str]) -> None:
    """Words such as unknown count as missing, unless they are classes of the recipe."""
    classes = set(map(_folded, given.classes))
    for place, word in enumerate(values.words):
        vague = word.casefold() in VAGUE and _folded(word) not in classes
        if vague and not values.missing[place]:
            values.missing[place] = True
            count = len(values.rows(place))
            notes.append(f"label {values.name!r}: {count} values {word!r} count as missing")


def _numbers(values: _Values, given: _Given, notes: list[str]) -> pd.Series | None:
    """A column of numbers; None: it holds words. UserError: it holds a word among many numbers."""
    words = _without_commas(values, notes)
    numbers = list(map(_number, words))
    truths = _truths(given, _others(values, numbers))
    for place, word in enumerate(words):
        numbers[place] = truths.get(word.casefold(), numbers[place])

    # Words for missing in a column of numbers
    others = _others(values, numbers)
    plain = len(words) - int(values.missing.sum()) - len(others)
    vague = all(word.casefold() in VAGUE for word in others.values())
    if others and plain and vague and given.kind != "categorical":
        _vague_is_missing(values, given, notes)
        others = _others(values, numbers)
    if not others:
        return _taken(values, numbers, notes) if plain else None

    # Other words
    if plain and given.kind is None and not given.dropped:
        place, word = next(iter(others.items()))
        where = f"{word!r} (of {values.column.index[values.rows(place)[0]]})"
        if plain >= max(MANY, len(others)):
            drop = f"leave the label out by pack.drop='[{values.name}]'"
            ways = f"mend or empty it, {drop}, or give its kind in a recipe"
            raise UserError(f"label {values.name!r} holds {where} among {plain} numbers; {ways}.")
        taken = "beside numbers: they are taken for words"
        notes.append(f"label {values.name!r} holds {where} {taken}")
    return None


def _truths(given: _Given, others: dict[int, str]) -> dict[str, int]:
    """Word in lower case -> 0 or 1, where words that are no numbers are yes and no."""
    if given.kind != "binary":
        only_truths = {word.casefold() for word in others.values()} <= {"true", "false"}
        return {"true": 1, "false": 0} if only_truths else {}
    truths = dict[str, int]()
    for value, spellings in BOOLEANS.items():
        for word in spellings:
            truths[word.casefold()] = int(value)
    return truths


def _others(values: _Values, numbers: list[Any]) -> dict[int, str]:
    """Place -> word of what is no number."""
    return {
        place: word
        for place, word in enumerate(values.words)
        if numbers[place] is None and not values.missing[place]
    }


def _without_commas(values: _Values, notes: list[str]) -> list[str]:
    """Words without commas between thousands, or with a point instead of a decimal comma."""
    numbers = list(map(_number, values.words))
    others = set(_others(values, numbers).values())
    by_thousands = set(filter(THOUSANDS.fullmatch, others))
    commas = by_thousands | set(filter(DECIMAL_COMMA.fullmatch, others))
    if not commas or any(word.casefold() not in VAGUE for word in others - commas):
        return values.words
    thousands = by_thousands == commas
    read = "between thousands" if thousands else "instead of a decimal point"
    notes.append(f"label {values.name!r} has commas {read}, as in {min(commas)}")
    plain = {word: word.replace(",", "" if thousands else ".") for word in commas}
    return [plain.get(word, word) for word in values.words]


def _tell_spellings(values: _Values, numbers: list[Any], notes: list[str]) -> None:
    """Whole numbers that differ by leading zeros may be different folders or people."""
    first: dict[Any, str] = {}
    for word, number, gone in zip(values.words, numbers, values.missing, strict=True):
        if gone or not INTEGER.fullmatch(word):
            continue
        if first.setdefault(number, word) != word:
            notes.append(f"label {values.name!r}: {first[number]!r} and {word!r} are one number")
            return


def _taken(values: _Values, numbers: list[Any], notes: list[str]) -> pd.Series | None:
    """The number of each row; None: floating-point numbers cannot tell them apart."""
    present = [number for number, gone in zip(numbers, values.missing, strict=True) if not gone]
    if len(set(present)) < len(present):
        _tell_spellings(values, numbers, notes)
    gaps = bool(values.missing.any() or (values.codes < 0).any())
    whole = all(isinstance(number, int) for number in present)
    limit = 2**53 if gaps else 2**63
    if whole and max(map(abs, present)) >= limit:
        return None
    if whole and not gaps:
        of_code = np.array(numbers, np.int64)
        return pd.Series(of_code[values.codes], values.column.index)
    of_value = np.array([*numbers, np.nan], float)  # code -1 takes the last
    of_value[:-1][values.missing] = np.nan
    return pd.Series(of_value[values.codes], values.column.index)


def _of_words(values: _Values, given: _Given, notes: list[str]) -> pd.Series:
    """The word of each row, spelled as most rows have it or as the recipe does."""
    # Places of words that differ by blanks or case alone, and the recipe's spellings of them
    spelled: dict[str, list[str]] = {}
    for word in given.classes:
        spelled.setdefault(_folded(word), []).append(word)
    alike: dict[str, list[int]] = {}
    for place in np.flatnonzero(~values.missing).tolist():
        alike.setdefault(_folded(values.words[place]), []).append(place)

    # One spelling of each; classes that differ by case alone are wanted
    present = values.codes[values.codes >= 0]
    counts = np.bincount(present, minlength=len(values.words))
    words = list[Any](values.words)
    merged = list[str]()
    for key, places in alike.items():
        if len(spelled.get(key, [])) > 1:
            continue
        most = max(places, key=lambda place: counts[place])
        chosen = spelled[key][0] if key in spelled else values.words[most]
        if len(places) > 1:
            some = ", ".join(repr(values.written[place]) for place in places[:4])
            merged.append(f"{some} are one, {chosen!r}")
        for place in places:
            words[place] = chosen
    if merged:
        more = f", and {len(merged) - 1} more" if len(merged) > 1 else ""
        alike_words = f"values that differ by blanks or case, {merged[0]}{more}"
        notes.append(f"label {values.name!r}: {alike_words}")

    if not values.missing.any() and words == values.written:
        return values.column
    of_value = np.array([*words, np.nan], object)  # code -1 takes the last
    of_value[:-1][values.missing] = np.nan
    return pd.Series(of_value[values.codes], values.column.index, dtype="str")


def texts(column: pd.Series) -> pd.Series:
    """Values as classes are written.

    Whole numbers have no point, also where gaps made floats of them.
    """

    def text(value: Any) -> str:
        is_number = isinstance(value, int | float | np.number)
        if is_number and float(value) % 1 == 0:
            return str(int(value))
        return str(value)

    return column.map(text, na_action="ignore")


def spelled(words: dict[Any, Any]) -> dict[str, Any]:
    """Value -> word, values as classes are written: YAML reads true, yes and on as one value."""
    by_value: dict[str, Any] = {}
    for value, word in words.items():
        spellings = BOOLEANS[value] if isinstance(value, bool) else [str(value)]
        by_value |= dict.fromkeys(spellings, word)
    return by_value


def renamed(column: pd.Series, words: dict[Any, Any]) -> pd.Series:
    """The recipe's word for each value, NaN = none; blanks, case, leading zeros do not matter."""
    exact = spelled(words)
    loose: dict[Any, Any] = {}
    for value, word in exact.items():
        loose.setdefault(_loosely(value), word)

    # Each different value is looked up once; code -1 takes the last
    codes, different = texts(column).factorize()
    of_value = list[Any]()
    for value in map(str, different):
        if value in exact:
            of_value.append(exact[value])
        else:
            of_value.append(loose.get(_loosely(value), np.nan))
    of_value.append(np.nan)
    return pd.Series(np.array(of_value, object)[codes], column.index)


def _loosely(value: str) -> Any:
    number = _number(_word(value))
    return _folded(value) if number is None else number
