"""Components by name: a file's name is the registered one, its keyword-only arguments are options.

`gan/dcgan` in the package `facefactory.models` is the file `facefactory/models/gan/dcgan.py`; a
name that ends in `.py` is the user's own file. A component is the one public class that its file
defines under the name `Component`.
"""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import typing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from facefactory import UserError, validation
from facefactory.validation import nearest

LISTED = 40  # names that an error lists


@dataclass(frozen=True)
class Nested:
    """Marks an option that names components of another package.

    It names one, or (`many`) is a mapping of names to options.
    """

    package: str
    many: bool = False


def unknown(complaint: str, word: object, known: typing.Iterable[str]) -> UserError:
    """`<complaint>; there are a, b. Did you mean 'a'?`"""
    listed = sorted(known) if isinstance(known, set) else list(known)
    shown = listed[:LISTED]
    if len(listed) > LISTED:
        shown.append(f"{len(listed) - LISTED} more")
    there_are = ", ".join(shown) or "none"
    return UserError(f"{complaint}; there are {there_are}.{nearest(str(word), listed)}")


def names(package: str) -> list[str]:
    """Registered names of `facefactory.<package>`: its files, and those of its families; not `_…`.

    A family is a sub-folder with an empty `__init__.py`, whose files are named as `gan/dcgan`; one
    that has a contract there is a package of its own.
    """
    root = Path(__file__).parent / package.replace(".", "/")
    marks = [mark for mark in root.glob("*/__init__.py") if not mark.stat().st_size]
    folders = [root, *(mark.parent for mark in marks)]
    files = [path for folder in folders for path in folder.glob("[!_]*.py")]
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in files)


def own_file(name: str) -> Path:
    """A file of the user's.

    Queued jobs read the copy that was made beside their code at the submission.
    """
    copy = Path(__file__).parents[1] / own_copy(name)
    return copy if copy.exists() else Path(name).expanduser()


def own_copy(name: str) -> Path:
    """Where the copy of a user's file lies below `code/`."""
    return Path("own", hashlib.sha256(name.encode()).hexdigest()[:16] + Path(name).suffix)


def module(package: str, name: str) -> ModuleType:
    """The file behind a name; UserError: no such name or file (the message lists what exists)."""
    if str(name).endswith(".py"):
        return _own_module(package, name)
    if name not in names(package):
        raise unknown(f"{package}: no {name!r}", name, names(package))
    return importlib.import_module(f"facefactory.{package}.{name.replace('/', '.')}")


def _own_module(package: str, name: str) -> ModuleType:
    """A file of the user's, loaded; UserError: there is none, it fails, or it defines no component."""
    path = own_file(name)
    if not path.is_file():
        raise UserError(
            f"{package}: no file {name!r}. "
            f"Give the path of a Python file, or one of {names(package)}."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:
        raise UserError(
            f"{package}: {name} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(loaded, "Component"):
        raise UserError(
            f"{package}: {name} defines no class Component; "
            f"see the docstring of {__package__}.{package}."
        )
    return loaded


def options(package: str, name: str) -> dict[str, inspect.Parameter]:
    """The options of a component: its keyword-only arguments with resolved annotations."""
    return _options(module(package, name).Component, name)


@functools.cache  # a search resolves many configs, and evaluating annotations takes long
def _options(component: Any, name: str) -> dict[str, inspect.Parameter]:
    own = {}
    for key, parameter in inspect.signature(component, eval_str=True).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if parameter.annotation is parameter.empty:
            raise UserError(
                f"{name}: option {key!r} has no type annotation; write e.g. {key}: int = 3."
            )
        own[key] = parameter
    return own


def resolve(package: str, spec: dict[str, Any]) -> dict[str, Any]:
    """`{'name': …, option: …}` with every default filled in and every value checked.

    UserError: an unknown name or option, or a value of the wrong type.
    """
    name = spec["name"]
    own = options(package, name)
    for key in spec.keys() - own.keys() - {"name"}:
        guess = nearest(key, own)
        raise UserError(f"{name} has no option {key!r}; it has {', '.join(own)}.{guess}")
    resolved = {"name": name}
    for key, parameter in own.items():
        value = spec.get(key, parameter.default)
        if value is parameter.empty:
            raise UserError(f"{name}: option {key!r} is missing; give {key}=…")
        resolved[key] = _checked(f"{name}: {key}", value, parameter.annotation)
    return resolved


def build(package: str, spec: dict[str, Any], *facts: Any) -> Any:
    """The component itself, with the components that its options name.

    Each is made from its options and from as many of `facts` (what the data fix) as it has
    positional arguments.
    """
    given = resolve(package, spec)
    component = module(package, given.pop("name")).Component
    for key, parameter in options(package, spec["name"]).items():
        nested = nested_in(parameter.annotation)
        if nested is not None:
            given[key] = _built(nested, given[key], *facts)
    kinds = [item.kind for item in inspect.signature(component).parameters.values()]
    positional = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        return component(*facts[:positional], **given)
    except UserError as error:  # options that do not fit each other or the data
        raise type(error)(f"{spec['name']}: {error}") from None


def nested_in(annotation: Any) -> Nested | None:
    """The mark of an option that names components; None for others."""
    marks = getattr(annotation, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Nested)), None)


def _built(nested: Nested, value: dict[str, Any], *facts: Any) -> Any:
    """What a resolved nested option names."""
    if not nested.many:
        return build(nested.package, value, *facts)
    built = {}
    for name, given in value.items():
        built[name] = build(nested.package, {"name": name, **given}, *facts)
    return built


def _checked(where: str, value: Any, annotation: Any) -> Any:
    """A value as its annotation wants it; UserError: it has another type."""
    nested = nested_in(annotation)
    if nested is not None:
        return _nested(where, value, nested)
    return validation.Validator(annotation).checked(where, value)


def _nested(where: str, value: Any, nested: Nested) -> dict[str, Any]:
    """Specs of the components that an option names, with their defaults."""
    if nested.many:
        if not isinstance(value, dict):
            raise UserError(
                f"{where} is {value!r}; it takes a mapping of names to options, e.g. {{}}."
            )
        specs = {}
        for name, given in value.items():
            if given is not None:  # null takes one away
                specs[name] = resolve(nested.package, {**given, "name": name})
                del specs[name]["name"]
        return specs

    # one component, by its name alone or with options
    spec = {"name": value} if isinstance(value, str) else value
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        allowed = ", ".join(names(nested.package))
        raise UserError(
            f"{where} is {value!r}; give a name ({allowed}), or {{name: …, its options}}."
        )
    return resolve(nested.package, spec)
