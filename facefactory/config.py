"""The configuration tree: defaults <- YAML file <- `key=value`, checked before anything starts.

Sections are frozen dataclasses whose fields are made by `key`: default, meaning (with its unit) and
bounds in one line.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from facefactory import UserError
from facefactory.registry import nearest

Tree = TypeVar("Tree")
SHOWN = 120  # characters of an argument that an error shows
MOST_INT = 2**63 - 1
MOST_VALUES = 100_000  # of a YAML file or argument
NO_REFERENCE = "Write the value itself."


def key(
    default: Any,
    meaning: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    identity: bool = True,
    resumes: bool = False,
) -> Any:
    """A configuration key.

    `identity=False`: it says where or how to run, so it enters no digest. `resumes=True`: it may
    change between the start and the continuation of a stage (a longer budget, another number of
    ranks).
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
    """Merge `layers` (nested mappings, weakest first) and `key=value` arguments into a `schema`.

    UserError: an argument that is not `key=value`, an unknown key, a wrong type or a value out of
    bounds.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import (
        GrammarParseError,
        InterpolationResolutionError,
        OmegaConfBaseException,
    )

    # what can be said before they are merged
    keys = list(leaves(schema))
    kinds = {name: kind for name, _, kind in keys}
    dotlists = [_dotlist(argument, kinds) for argument in arguments]
    for layer in layers:
        _check_layer(layer, kinds)

    # the merge, with its complaints in our words
    try:
        whole = OmegaConf.structured(schema)
        mappings = [OmegaConf.create(dict(layer)) for layer in layers]
        loaded = OmegaConf.to_object(OmegaConf.merge(whole, *mappings, *dotlists))
    except (GrammarParseError, InterpolationResolutionError) as error:
        raise UserError(
            f"{_first_line(error)}: '${{' begins a reference to another key. {NO_REFERENCE}"
        ) from None
    except OmegaConfBaseException as error:
        raise UserError(_explained(kinds, error)) from None
    except TypeError as error:  # a list where a mapping belongs, or the reverse
        source = " ".join(arguments) or layers[-1]
        raise UserError(f"{error} in {source}: {{a: b}} is a mapping, [a, b] a list.") from None

    # the values themselves
    for name, item, _ in keys:
        value = attrgetter(name)(loaded)
        _check_numbers(name, value)
        _check_bounds(name, value, **item.metadata)
    return loaded  # type: ignore[return-value]


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0]


def _shown(argument: str) -> str:
    """An argument as an error shows it: its beginning, in one line, whatever its bytes are."""
    return repr(argument) if len(argument) <= SHOWN else f"{argument[:SHOWN]!r}…"


def _dotlist(argument: str, kinds: dict[str, Any]) -> Any:
    """`key=value` as a mapping of OmegaConf's; UserError: it is none."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        argument.encode()
    except UnicodeEncodeError:
        raise UserError(f"{_shown(argument)} is not text in UTF-8; write it in UTF-8.") from None
    name, equals, value = argument.partition("=")
    if not equals or not all(name.split(".")):
        raise UserError(
            f"{_shown(argument)} is not of the form key=value, e.g. training.total_kimg=60. "
            "--help lists the keys."
        )

    # words are not YAML: run=no is a name, not false
    is_quoted = value[:1] in ("'", '"')
    if kinds.get(name) in (str, str | None) and value != "null" and not is_quoted:
        value = os.path.expandvars(value)
        argument = f"{name}={json.dumps(value, ensure_ascii=False)}"
    if "${" in value:
        raise UserError(
            f"{_shown(argument)}: '${{' names a variable that is not set. {NO_REFERENCE}"
        )

    # everything else is
    try:
        check_yaml(argument.partition("=")[2])
        return OmegaConf.from_dotlist([argument])
    except UserError as error:
        raise UserError(f"{_shown(argument)}: {error}") from None
    except (YAMLError, OmegaConfBaseException, RecursionError, ValueError):
        fix = "quote its value, e.g. key='\"a: b\"', or close its brackets"
        raise UserError(f"{_shown(argument)} is not readable as YAML: {fix}.") from None


def check_yaml(text: str) -> None:
    """Raise UserError for YAML of too many values, as aliases can name them.

    YAMLError: it is no YAML.
    """
    import yaml

    def count(node: Any) -> int:
        if id(node) not in counted:
            counted[id(node)] = MOST_VALUES  # for one that holds itself
            inner: list[Any] = []
            if isinstance(node, yaml.MappingNode):
                inner = list(itertools.chain(*node.value))
            elif isinstance(node, yaml.SequenceNode):
                inner = node.value
            counted[id(node)] = min(MOST_VALUES, 1 + sum(map(count, inner)))
        return counted[id(node)]

    # each node is counted once, and known by then wherever an alias names it
    counted: dict[int, int] = {}
    try:
        top = yaml.compose(text, Loader=yaml.SafeLoader)
        values = count(top) if top is not None else 0
    except RecursionError:
        raise UserError("it is nested too deeply; write it flatter.") from None
    if values >= MOST_VALUES:
        raise UserError(
            f"it stands for {MOST_VALUES} values or more (aliases count each time); write fewer."
        )


def _check_layer(layer: Mapping[str, Any], kinds: dict[str, Any], above: str = "") -> None:
    """Raise UserError for keys of a file that are written as on the command line.

    The same for sections without keys.
    """
    for name, value in layer.items():
        whole = f"{above}{name}"
        if "." in str(name) and whole in kinds:
            first, *rest = str(name).split(".")
            nested = "…"
            for word in reversed(rest):
                nested = f"{{{word}: {nested}}}"
            raise UserError(
                f"{whole}: in a file write it as {first}: {nested}; dots are for the command line."
            )

        inside = [known for known in kinds if known.startswith(f"{whole}.")]
        if inside and value is None:
            example = inside[0].removeprefix(f"{whole}.")
            raise UserError(
                f"{whole}: is empty; give its keys, e.g. {whole}: {{{example}: …}}, "
                "or remove that line."
            )
        if inside and isinstance(value, Mapping):
            _check_layer(value, kinds, f"{whole}.")


def _explained(known: dict[str, Any], error: Any) -> str:
    """What OmegaConf complains of, in our words; `known`: name -> type of every key."""
    reason = _first_line(error).partition(". Did you mean")[0][:300]  # we guess better
    wrong = error.full_key
    if wrong is None:
        example = next(iter(known))
        return (
            f"{reason}: a section takes no value; give its keys, e.g. {example}=…. "
            "--help lists the keys."
        )
    if "is incompatible with" in reason:
        return f"{wrong}: its names are words; put numbers in quotes, e.g. '{{\"1\": 3.0}}'."
    if "not in" in reason or wrong not in known:
        guess = _nearest_key(wrong, known)
        return f"unknown key {wrong!r} ({reason}).{guess} --help lists the keys."
    if str(known[wrong]).startswith("list"):
        return f"{wrong} takes a list, e.g. {wrong}=[a,b]. --help lists types and meanings."
    return f"{wrong}: {reason}. --help lists types and meanings."


def _nearest_key(wrong: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for a key, a section, or a key of the same name elsewhere."""
    sections = {name.split(".")[0] for name in known}
    guess = nearest(wrong, known) or nearest(wrong, sections)
    if guess:
        return guess
    for name in known:
        if name.split(".")[-1] == wrong.split(".")[-1]:
            return f" Did you mean {name!r}?"
    return ""


def _check_numbers(name: str, value: Any) -> None:
    """Raise UserError for a number that no file of ours can hold, however deep it stands."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            _check_numbers(name, part)
    if isinstance(value, int) and abs(value) > MOST_INT:
        raise UserError(
            f"{name} has the number {str(value)[:20]}…; "
            f"whole numbers reach from -{MOST_INT} to {MOST_INT}."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name} is {value}; it must be a finite number.")


def _check_bounds(
    name: str, value: Any, meaning: str, low: float, high: float, **others: Any
) -> None:
    """Raise UserError for a finite number, or one in a list, that is out of a key's bounds."""
    for number in value if isinstance(value, list) else [value]:
        if not isinstance(number, int | float) or low <= number <= high:
            continue
        allowed = []
        if math.isfinite(low):
            allowed.append(f"at least {low}")
        if math.isfinite(high):
            allowed.append(f"at most {high}")
        raise UserError(f"{name} is {number}; it must be {' and '.join(allowed)} ({meaning}).")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping as plain containers; UserError: no such file, not YAML or not a mapping."""
    from omegaconf import OmegaConf

    try:
        check_yaml(path.read_text("utf-8"))
        content = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        near = sorted(other.stem for other in path.parent.glob("*.yaml"))
        beside = ", ".join(near) or "none"
        raise UserError(
            f"no file {path}; beside it are {beside}.{nearest(path.stem, near)}"
        ) from None
    except Exception as error:
        raise UserError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold 'key: value' lines, found {type(content).__name__}.")
    return {str(name): value for name, value in content.items()}


def dump(tree: Any) -> str:
    """The resolved tree as YAML."""
    import yaml

    return yaml.safe_dump(dataclasses.asdict(tree), sort_keys=False)


def flat(tree: Any, *, resumes: bool = True) -> dict[str, Any]:
    """Dotted name -> value of the keys that decide a result.

    `resumes=False` leaves out those that may change midway.
    """
    values = {}
    for name, item, _ in leaves(type(tree)):
        if item.metadata["identity"] and (resumes or not item.metadata["resumes"]):
            values[name] = attrgetter(name)(tree)
    return values


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def help_text(schema: type) -> str:
    """Every key with its default, type and meaning."""
    defaults = schema()
    lines = []
    for name, item, kind in leaves(schema):
        shown = kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("typing.")
        lines.append(f"  {name}={attrgetter(name)(defaults)}")
        lines.append(f"      {item.metadata['meaning']} [{shown}]")
    return "\n".join(lines)
