"""Components by name: the file's name is its registered name, its keyword-only arguments are its options.

`gan/dcgan` in the package `facefactory.models` is the file `facefactory/models/gan/dcgan.py`; a name that ends in
`.py` is the user's own file. A component is the one public class that its file defines under the name `Component`.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

from facefactory import UserError


def nearest(word: str, words: typing.Iterable[str]) -> str:
    """` Did you mean 'x'?` for the closest of `words`, else an empty string."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def unknown(complaint: str, word: object, known: typing.Iterable[str]) -> UserError:
    """`<complaint>; there are a, b. Did you mean 'a'?`"""
    listed = list(known)
    some = [*listed[:40], *([f"{len(listed) - 40} more"] if len(listed) > 40 else [])]
    return UserError(f"{complaint}; there are {', '.join(some) or 'none'}.{nearest(str(word), listed)}")


def names(package: str) -> list[str]:
    """Registered names below `facefactory.<package>`, e.g. `['classifier/convnet', 'gan/dcgan', 'vae/conv']`."""
    root = Path(__file__).parent / package.replace(".", "/")
    files = list(root.glob("*/[!_]*.py")) or root.glob("[!_]*.py")
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in files)


def own_file(name: str) -> Path:
    """A file of the user's; queued jobs read the copy that was made beside their code at the submission."""
    copy = Path(__file__).parents[1] / own_copy(name)
    return copy if copy.exists() else Path(name).expanduser()


def own_copy(name: str) -> Path:
    """Where the copy of a user's file lies below `code/`."""
    return Path("own", hashlib.sha256(name.encode()).hexdigest()[:16] + Path(name).suffix)


def module(package: str, name: str) -> ModuleType:
    """The file behind a name; UserError: no such name or file (the message lists what exists)."""
    if str(name).endswith(".py"):
        path = own_file(name)
        if not path.is_file():
            raise UserError(f"{package}: no file {name!r}. Give the path of a Python file, or one of {names(package)}.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(loaded)
        except Exception as error:
            raise UserError(f"{package}: {name} cannot be loaded: {type(error).__name__}: {error}") from error
        if not hasattr(loaded, "Component"):
            raise UserError(f"{package}: {name} defines no class Component; see the docstring of {__package__}.{package}.")
        return loaded
    if name not in names(package):
        raise unknown(f"{package}: no {name!r}", name, names(package))
    return importlib.import_module(f"facefactory.{package}.{name.replace('/', '.')}")


def options(package: str, name: str) -> dict[str, inspect.Parameter]:
    """The options of a component: its keyword-only arguments with resolved annotations."""
    parameters = inspect.signature(module(package, name).Component, eval_str=True).parameters
    found = {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    for key, parameter in found.items():
        if parameter.annotation is parameter.empty:
            raise UserError(f"{name}: option {key!r} has no type annotation; write e.g. {key}: int = 3.")
    return found


def resolve(package: str, spec: dict[str, Any]) -> dict[str, Any]:
    """`{'name': …, option: …}` with every default filled in and every value checked against the signature.

    UserError: an unknown name or option, or a value of the wrong type.
    """
    name, known = spec["name"], options(package, spec["name"])
    for key in spec.keys() - known.keys() - {"name"}:
        raise UserError(f"{name} has no option {key!r}; it has {', '.join(known)}.{nearest(key, known)}")
    resolved = {"name": name}
    for key, parameter in known.items():
        value = spec.get(key, parameter.default)
        if value is parameter.empty:
            raise UserError(f"{name}: option {key!r} is missing; give {key}=…")
        resolved[key] = _checked(f"{name}: {key}", value, parameter.annotation)
    return resolved


def build(package: str, spec: dict[str, Any], *facts: Any) -> Any:
    """The component itself, made from what the data fix (`facts`) and its options."""
    given = resolve(package, spec)
    return module(package, given.pop("name")).Component(*facts, **given)


def _checked(where: str, value: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is typing.Literal:
        allowed = typing.get_args(kind)
        if value not in allowed:
            raise UserError(f"{where} is {value!r}; allowed are {', '.join(map(str, allowed))}.")
    elif kind is float and type(value) is int:
        return float(value)
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{where} is {value!r}; it takes a value of type {kind.__name__}.")
    return value
