"""The one validator of what people write: keys of the config, options of components.

Pydantic does the work, the words are ours: what is wrong, the value, what is allowed.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from facefactory import UserError

if TYPE_CHECKING:
    from pydantic import ValidationError

MOST_INT = 2**63 - 1
SHOWN = 60  # characters of a value that an error shows
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a mapping",
    Any: "any value",
    types.NoneType: "null",
}


class Validator:
    """What makes a value into what an annotation says.

    Numbers must be finite and within the bounds, wherever in the value they stand; numbers are
    taken for words where words belong, words never for numbers.
    """

    def __init__(self, annotation: Any, low: float = -math.inf, high: float = math.inf) -> None:
        from pydantic import TypeAdapter

        self.annotation = annotation
        self.low = low
        self.high = high
        self.adapter = TypeAdapter(_as_written(annotation, low, high))

    def checked(self, where: str, value: Any, about: str = "") -> Any:
        """The value as the annotation wants it.

        Args:
            where: the key, for the message.
            about: what the key means.

        Raises:
            UserError: it has another type, or is out of its bounds.
        """
        from pydantic import ValidationError

        try:
            return self.adapter.validate_python(value)
        except ValidationError as error:
            meaning = f" ({about})" if about else ""
            wrong, rule = self._in_words(value, error)
            raise UserError(f"{where} is {_shown(wrong)}; {rule}{meaning}.") from None

    def _in_words(self, value: Any, error: ValidationError) -> tuple[Any, str]:
        """What does not fit, and what would."""
        first = error.errors()[0]
        wrong = first["input"]
        match first["type"]:
            case "greater_than_equal" | "less_than_equal":
                return wrong, f"it must be {self._bounds()}"
            case "finite_number":
                return wrong, "it must be a finite number"
            case "value_error":
                return wrong, first["msg"].removeprefix("Value error, ")
            case "literal_error":
                return wrong, f"allowed are {_wanted(self.annotation)}"
        return value, f"it takes {_wanted(self.annotation)}"

    def _bounds(self) -> str:
        allowed = []
        if math.isfinite(self.low):
            allowed.append(f"at least {_plain(self.low)}")
        if math.isfinite(self.high):
            allowed.append(f"at most {_plain(self.high)}")
        return " and ".join(allowed)


def _as_written(annotation: Any, low: float, high: float) -> Any:
    """The annotation for values that were read from YAML."""
    from pydantic import AfterValidator, Field

    inner = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    bounds = Field(
        strict=True,
        ge=low if math.isfinite(low) else None,
        le=high if math.isfinite(high) else None,
    )
    if annotation is int:
        return Annotated[int, bounds, AfterValidator(_storable)]
    if annotation is float:
        return Annotated[float, bounds, Field(allow_inf_nan=False)]
    if annotation is bool:
        return Annotated[bool, Field(strict=True)]
    if annotation is str:
        return Annotated[str, Field(coerce_numbers_to_str=True)]
    if annotation is Any:
        return Annotated[Any, AfterValidator(_storable)]
    if origin in (list, dict):
        return origin[tuple(_as_written(part, low, high) for part in inner)]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(_as_written(part, low, high) for part in inner)]  # noqa: UP007
    return annotation


def _storable(value: Any) -> Any:
    """The value, if every number in it is one that our files can hold; however deep it stands.

    ValueError: one is not.
    """
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _storable(part)
    if isinstance(value, int) and abs(value) > MOST_INT:
        raise ValueError(
            f"{str(value)[:20]}… is too large: whole numbers reach from -{MOST_INT} to {MOST_INT}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} must be a finite number")
    return value


def _wanted(annotation: Any) -> str:
    """What an annotation allows, in words."""
    inner = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_wanted, inner))
    if origin is typing.Literal:
        return ", ".join(map(str, inner))
    if origin is list:
        return f"a list, e.g. [a, b], each {_wanted(inner[0])}"
    return WORDS.get(origin or annotation, str(annotation))


def _plain(bound: float) -> float:
    return int(bound) if bound == int(bound) else bound


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def nearest(word: str, words: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest of `words`, else an empty string."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
