"""What a recipe may say: the keys of shards/*.yaml, their types and bounds; shards/README.md tells what they mean."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from facefactory import UserError
from facefactory.registry import nearest

Word = str | int | float | bool  # as YAML reads a value of a label
Name = Annotated[
    str, Field(pattern=r"^[\w.-]+$")
]  # of a set or split: folders and files are called so
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
            raise ValueError(
                "YAML reads yes, no, on, off, true and false as truths: put them in quotes, as 'yes'"
            )
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
    group: str | None = (
        None  # None: people are looked for among the folders; "", which is null in the file: nobody is
    )
    split: Split | None = None  # the same of the set's own splits
    expect: dict[str, int] = {}
    origin: str | None = None
    licence: str | None = None
    consent: str | None = None
    get: str | None = None
    crop: str | int | list[int] = "square"
    where: str | None = None
    limit: int | None = Field(None, ge=1)
    balance: str | None = None
    keep: list[str] | None = None
    drop: list[str] | None = None
    min_prevalence: float = Field(0.0, ge=0, le=0.5)
    max_bad: float = Field(0.01, ge=0, le=1)


def whole(given: dict[str, Any], path: Path) -> dict[str, Any]:
    """A recipe with every key; UserError: a key that is missing or unknown, or a value that it cannot have."""
    source = str(given.get("source"))
    section = (
        {source: given[source]}
        if isinstance(given.get(source), dict) and source not in Recipe.model_fields
        else {}
    )
    decided: dict[str, Any] = {
        name: "" for name in ("group", "split") if name in given and given[name] is None
    }
    try:
        read = Recipe.model_validate(
            {
                name: value
                for name, value in given.items()
                if name not in section and value is not None
            }
        )
    except ValidationError as error:
        found = error.errors()[-1]
        *_, last = place = [str(part) for part in found["loc"]]
        if found["type"] == "missing":
            raise UserError(
                f"{path} has no key {'.'.join(place)!r}; copy it from shards/folder.yaml."
            ) from None
        if found["type"] == "extra_forbidden":
            guess = nearest(last, Recipe.model_fields) if len(place) == 1 else ""
            raise UserError(
                f"{path} has an unknown key {'.'.join(place)!r}.{guess} shards/README.md lists them."
            ) from None
        raise UserError(
            f"{path}: {'.'.join(place)} is {found['input']!r}. {found['msg']}; see shards/README.md."
        ) from None
    return {**read.model_dump(), **decided, **section}
