"""What a recipe may say: the keys of shards/*.yaml, their types and bounds.

shards/README.md tells what they mean.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from facefactory import UserError
from facefactory.validation import nearest

Word = str | int | float | bool  # as YAML reads a value of a label
# Of a set or split: folders and files are called so
Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Keys that it does not have are refused."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


class Table(Strict):
    """A label table below the root."""

    file: str | list[str]
    columns: list[str] | None = None
    optional: bool = False


class Split(Strict):
    """The set's own split: a label, and the split that each of its values means."""

    by: str
    names: dict[Word, Name]


class Kind(Strict):
    """A kind of label with the order of its classes."""

    kind: str
    classes: list[Word] | None = None

    @field_validator("classes")
    @classmethod
    def _no_truths(cls, classes: list[Word] | None) -> list[Word] | None:
        if any(isinstance(word, bool) for word in classes or []):
            truths = "YAML reads yes, no, on, off, true and false as truths"
            raise ValueError(f"{truths}: put them in quotes, as 'yes'")
        return classes


class Layout(BaseModel, extra="allow"):
    """Keys that hold where a file or folder is there."""

    needs: str


class Recipe(Strict):
    """A face set; a section named like its source may stand beside these."""

    name: Name
    source: str
    splits: dict[Name, Share] = Field(min_length=1)
    root: str | None = None
    images: str | list[str] | None = None
    layouts: list[Layout] = []
    labels: str | None = None
    tables: list[Table] = []
    pattern: str | None = None
    values: dict[str, dict[Word, Word]] = {}
    kinds: dict[str, str | Kind] = {}
    # None: people are looked for among the folders; "", which is null in the file: nobody is
    group: str | None = None
    split: Split | None = None  # the same of the set's own splits
    expect: dict[str, int] = {}
    origin: str | None = None
    licence: str | None = None
    consent: str | None = None
    get: str | None = None
    crop: str | int | list[int] = "fit"
    where: str | None = None
    limit: int | None = Field(None, ge=1)
    balance: str | None = None
    keep: list[str] | None = None
    drop: list[str] | None = None
    min_prevalence: float = Field(0.0, ge=0, le=0.5)
    max_bad: float = Field(0.01, ge=0, le=1)


def whole(given: dict[str, Any], path: Path) -> dict[str, Any]:
    """A recipe with every key.

    UserError: a key that is missing or unknown, or a value that it cannot have.
    """
    # The source's own section is the source's concern
    keys = {name: value for name, value in given.items() if value is not None}
    source = str(given.get("source"))
    section = dict[str, Any]()
    if isinstance(given.get(source), dict) and source not in Recipe.model_fields:
        section[source] = keys.pop(source)
    try:
        recipe = Recipe.model_validate(keys).model_dump()
    except ValidationError as error:
        raise _misfit(error, path) from None

    # null in the file decides: nobody, or no splits
    for name in ("group", "split"):
        if name in given and given[name] is None:
            recipe[name] = ""
    return {**recipe, **section}


def _misfit(error: ValidationError, path: Path) -> UserError:
    """The last of the things that do not fit, in words."""
    last = error.errors()[-1]
    parts = [str(part) for part in last["loc"]]
    place = ".".join(parts)
    if last["type"] == "missing":
        return UserError(f"{path} has no key {place!r}; copy it from shards/folder.yaml.")
    if last["type"] == "extra_forbidden":
        guess = nearest(place, Recipe.model_fields) if len(parts) == 1 else ""
        lists = "shards/README.md lists them"
        return UserError(f"{path} has an unknown key {place!r}.{guess} {lists}.")
    value = f"{place} is {last['input']!r}"
    return UserError(f"{path}: {value}. {last['msg']}; see shards/README.md.")
