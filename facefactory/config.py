"""The configuration tree: defaults <- YAML file <- `key=value`, checked before anything starts.

Sections are frozen dataclasses whose fields are made by `key`: default, meaning (with its unit) and bounds in one line.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from facefactory import UserError
from facefactory.registry import nearest

Tree = TypeVar("Tree")


def key(
    default: Any, meaning: str, *, low: float = -math.inf, high: float = math.inf, identity: bool = True, resumes: bool = False
) -> Any:
    """A configuration key.

    `identity=False`: it says where or how to run, so it enters no digest. `resumes=True`: it may change between the
    start and the continuation of a stage (a longer budget, another number of ranks).
    """
    meta = {"meaning": meaning, "low": low, "high": high, "identity": identity, "resumes": resumes}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=meta)
    return field(default=default, metadata=meta)


def section(kind: type, **defaults: Any) -> Any:
    """A sub-tree of the configuration; `defaults`: what differs from the defaults of its own."""
    return field(default_factory=lambda: kind(**defaults))


def leaves(schema: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """(dotted name, field, type) of every key below a dataclass, in reading order."""
    hints = get_type_hints(schema)
    for item in dataclasses.fields(schema):
        kind = hints[item.name]
        if dataclasses.is_dataclass(kind):
            yield from leaves(kind, f"{prefix}{item.name}.")  # type: ignore[arg-type]
        else:
            yield prefix + item.name, item, kind


def load(schema: type[Tree], arguments: list[str], layers: Sequence[Mapping[str, Any]]) -> Tree:
    """Merge `layers` (nested mappings, weakest first) and `key=value` arguments into a checked `schema`.

    UserError: an argument that is not `key=value`, an unknown key, a wrong type or a value out of bounds.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    known = list(leaves(schema))
    texts = {name for name, _, kind in known if kind in (str, str | None)}
    dotlists = []
    for argument in arguments:
        if "=" not in argument:
            raise UserError(f"{argument!r} is not of the form key=value, e.g. training.total_kimg=60. --help lists the keys.")
        name, value = argument.split("=", 1)
        if name in texts and value != "null" and value[:1] not in ("'", '"'):  # run=no is a name, not false
            argument = f"{name}={json.dumps(os.path.expandvars(value), ensure_ascii=False)}"
        try:
            dotlists.append(OmegaConf.from_dotlist([argument]))
        except YAMLError:
            fix = "quote its value, e.g. key='\"a: b\"', or close its brackets"
            raise UserError(f"{argument!r} is not readable as YAML: {fix}.") from None
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), *(OmegaConf.create(dict(layer)) for layer in layers), *dotlists)
        loaded = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(_explained({name: kind for name, _, kind in known}, error)) from None
    except TypeError as error:  # a list where a mapping belongs, or the reverse
        raise UserError(f"{error} in {' '.join(arguments) or layers[-1]}: {{a: b}} is a mapping, [a, b] a list.") from None
    for name, item, _ in known:
        _check_bounds(name, attrgetter(name)(loaded), **item.metadata)
    return loaded  # type: ignore[return-value]


def _explained(known: dict[str, Any], error: Any) -> str:
    reason, wrong = str(error).split("\n")[0].partition(". Did you mean")[0], error.full_key  # we guess better
    if "is incompatible with" in reason and wrong is not None:
        return f"{wrong}: its names are words; put numbers in quotes, e.g. '{{\"1\": 3.0}}'."
    if wrong is None:
        return f"{reason}: a section takes no value; give its keys, e.g. {next(iter(known))}=…. --help lists the keys."
    if "not in" in reason or wrong not in known:
        same_leaf = [f" Did you mean {name!r}?" for name in known if name.split(".")[-1] == wrong.split(".")[-1]]
        guesses = [nearest(wrong, known), nearest(wrong, {name.split(".")[0] for name in known}), *same_leaf]
        guess = next(filter(None, guesses), "")
        return f"unknown key {wrong!r} ({reason}).{guess} --help lists the keys."
    if str(known[wrong]).startswith("list"):
        return f"{wrong} takes a list, e.g. {wrong}=[a,b]. --help lists types and meanings."
    return f"{wrong}: {reason}. --help lists types and meanings."


def _check_bounds(name: str, value: Any, meaning: str, low: float, high: float, **others: Any) -> None:
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, int | float) and not (math.isfinite(number) and low <= number <= high):
            bounds = {f"at least {low}": low, f"at most {high}": high} if math.isfinite(number) else {"a finite number": 0.0}
            allowed = " and ".join(words for words, bound in bounds.items() if math.isfinite(bound))
            raise UserError(f"{name} is {number}; it must be {allowed} ({meaning}).")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping as plain containers; UserError: no such file, not YAML or not a mapping."""
    from omegaconf import OmegaConf

    try:
        found = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        near = sorted(other.stem for other in path.parent.glob("*.yaml"))
        raise UserError(f"no file {path}; beside it are {', '.join(near) or 'none'}.{nearest(path.stem, near)}") from None
    except Exception as error:
        raise UserError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} must hold 'key: value' lines, found {type(found).__name__}.")
    return {str(name): value for name, value in found.items()}


def dump(tree: Any) -> str:
    """The resolved tree as YAML."""
    import yaml

    return yaml.safe_dump(dataclasses.asdict(tree), sort_keys=False)


def flat(tree: Any, *, resumes: bool = True) -> dict[str, Any]:
    """Dotted name -> value of the keys that decide a result; `resumes=False` leaves out those that may change midway."""
    return {
        name: attrgetter(name)(tree)
        for name, item, _ in leaves(type(tree))
        if item.metadata["identity"] and (resumes or not item.metadata["resumes"])
    }


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def help_text(schema: type) -> str:
    """Every key with its default, type and meaning."""
    defaults, lines = schema(), []
    for name, item, kind in leaves(schema):
        shown = kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("typing.")
        lines.append(f"  {name}={attrgetter(name)(defaults)}\n      {item.metadata['meaning']} [{shown}]")
    return "\n".join(lines)
