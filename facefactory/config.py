"""The configuration tree: defaults <- YAML file <- `key=value`, checked before anything starts.

Sections are frozen dataclasses whose fields are made by `key`: default, meaning (with its unit) and
bounds in one line.
"""

import contextlib
import copy
import dataclasses
import functools
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from facefactory import UserError, validation
from facefactory.validation import nearest

Tree = TypeVar("Tree")
SHOWN = 120  # characters of an argument that an error shows
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
    late: bool = False,
) -> Any:
    """A configuration key.

    `identity=False`: it says where or how to run, so it enters no digest. `resumes=True`: it may
    change between the start and the continuation of a stage (a longer budget, another number of
    ranks). `late=True`: jobs on a finished run may change it.
    """
    meta = {"meaning": meaning, "low": low, "high": high}
    meta |= {"identity": identity, "resumes": resumes, "late": late}
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
    keys = list(leaves(schema))
    kinds = {name: kind for name, _, kind in keys}
    dotlists = [_dotlist(argument, kinds) for argument in arguments]
    for layer in layers:
        _check_layer(layer, kinds)

    merged = _merged(schema, layers, dotlists, arguments)
    _check_names(merged, kinds)
    values = {}
    for name, item, kind in keys:
        value = merged
        for word in name.split("."):
            value = value[word]
        validator = _validator(kind, item.metadata["low"], item.metadata["high"])
        values[name] = validator.checked(name, value, item.metadata["meaning"])
    return _tree(schema, values)


@functools.cache
def _defaults(schema: Callable[[], Any]) -> Any:
    """A schema's own values as a mapping to be merged with."""
    from omegaconf import OmegaConf

    return OmegaConf.create(dataclasses.asdict(schema()))


def _merged(
    schema: Callable[[], Any],
    layers: Sequence[Mapping[str, Any]],
    dotlists: list[Any],
    arguments: list[str],
) -> dict[str, Any]:
    """A schema's values, layers and arguments as one mapping, the last word decides; UserError: they do not fit together."""
    # files alone need no more than this, and every process of a chain reads one
    if not dotlists and "${" not in str(layers):
        with contextlib.suppress(_Unlike):
            return functools.reduce(_over, layers, dataclasses.asdict(schema()))

    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        mappings = [OmegaConf.create(dict(layer)) for layer in layers]
        merged = OmegaConf.merge(_defaults(schema), *mappings, *dotlists)
        return OmegaConf.to_container(merged, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise UserError(
            f"{_first_line(error)}: '${{' begins a reference to another key. {NO_REFERENCE}"
        ) from None
    except TypeError as error:  # a list where a mapping belongs, or the reverse
        source = " ".join(arguments) or layers[-1]
        raise UserError(f"{error} in {source}: {{a: b}} is a mapping, [a, b] a list.") from None


class _Unlike(Exception):
    """A value where a section belongs, or the reverse: what that means is OmegaConf's to say."""


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping over another one, section by section."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[name] = _over(under, value)
        elif isinstance(under, Mapping) or (isinstance(value, Mapping) and under is not None):
            raise _Unlike
        else:
            merged[name] = copy.deepcopy(value)
    return merged


def _check_names(given: dict[str, Any], kinds: dict[str, Any], above: str = "") -> None:
    """Raise UserError for a key that does not exist, or a value where a section belongs."""
    for word, value in given.items():
        name = f"{above}{word}"
        if name in kinds:
            continue
        inside = [known for known in kinds if known.startswith(f"{name}.")]
        if not inside:
            guess = _nearest_key(name, kinds)
            raise UserError(f"unknown key {name!r}.{guess} --help lists the keys.")
        if not isinstance(value, dict):
            raise UserError(
                f"{name} is {value!r}; a section takes no value: give its keys, e.g. {inside[0]}=…. "
                "--help lists them."
            )
        _check_names(value, kinds, f"{name}.")


# one of a kind serves many keys, and a search loads many trees
_validator = functools.cache(validation.Validator)


def _tree(schema: type[Tree], values: dict[str, Any], prefix: str = "") -> Tree:
    """The dataclass with these values, its sections from those whose names begin with theirs."""
    hints = get_type_hints(schema)
    given = {}
    for item in dataclasses.fields(schema):  # type: ignore[arg-type]
        name = prefix + item.name
        is_section = dataclasses.is_dataclass(hints[item.name])
        given[item.name] = (
            _tree(hints[item.name], values, f"{name}.") if is_section else values[name]
        )
    return schema(**given)


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


def help_text(schema: type) -> str:
    """Every key with its default, type and meaning."""
    defaults = schema()
    lines = []
    for name, item, kind in leaves(schema):
        shown = kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("typing.")
        lines.append(f"  {name}={attrgetter(name)(defaults)}")
        lines.append(f"      {item.metadata['meaning']} [{shown}]")
    return "\n".join(lines)
