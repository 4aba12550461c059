"""Small versions of all that is registered, in every pairing that fits: what a dropped-in file is tested with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from facefactory import registry
from facefactory.facts import Facts, Label

FACTS = Facts(
    16,
    16,
    1,
    {"Glasses": Label("binary", ("0", "1")), "Person": Label("identity", ("a", "b", "c"))},
)
SMALL = {
    "width": 4,
    "z_dim": 4,
    "depth": 2,
    "feature_dim": 8,
    "conditions": ["Glasses"],
    "start": 8,
    "g_widths": [8, 4],
    "d_widths": [4, 8],
    "levels": 2,
    "widths": [8, 8, 4],
    "group": 4,
    "memory": 16,
    "z_top": 3,
    "maps": 1,
    "codes": 8,
    "code_dim": 4,
    "prior_width": 8,
    "stable_kimg": 0.001,  # all levels compute in the second of six iterations of 12 images
    "fade_kimg": 0.006,
    "w_dim": 4,
    "mixing": 0.5,
}
ALONE = {"deviation_group": 1}  # options with which no image sees its batch, beside norms
LAZY = {"interval": 2}  # several times in six iterations
Spec = dict[str, Any]


def small(package: str, name: str, **wanted: Any) -> Spec:
    """A component with small options, as far as it has such."""
    known = registry.options(package, name)
    given = {key: value for key, value in {**SMALL, **LAZY, **wanted}.items() if key in known}
    return {"name": name, **given}


def without_batch_norm(model: Spec) -> Spec:
    """The same model, in which no image sees its batch."""
    options = registry.options("models", model["name"])
    norms = [key for key in options if key.endswith("norm")]
    alone = {key: value for key, value in ALONE.items() if key in options}
    return {**model, **dict.fromkeys(norms, "group"), **alone}


def fits(objective: str, model: Any) -> bool:
    """Whether an objective trains a model."""
    return has(model, registry.module("objectives", objective).Component.needs)


def has(model: Any, needs: tuple[str, ...]) -> bool:
    """Whether a model has what is needed, and not as an empty tuple."""
    return all(getattr(model, need, ()) != () for need in needs)


def trained_by(objective: str) -> Any:
    """The first model that an objective trains."""
    models = (
        registry.build("models", small("models", name), FACTS) for name in registry.names("models")
    )
    return next(model for model in models if fits(objective, model))


def nested_packages() -> list[str]:
    """Packages whose components an option of an objective names."""
    found = set()
    for name in registry.names("objectives"):
        for parameter in registry.options("objectives", name).values():
            nested = registry.nested_in(parameter.annotation)
            found |= {nested.package} if nested else set()
    return sorted(found)


def objectives(name: str, done: set[str]) -> dict[str, Spec]:
    """An objective as it is, and with each component that its options can name, by what differs.

    Packages in `done` are left out; those that were not, are added.
    """
    found: dict[str, Spec] = {"": small("objectives", name)}
    for key, parameter in registry.options("objectives", name).items():
        nested = registry.nested_in(parameter.annotation)
        if nested is None or nested.package in done:
            continue
        done.add(nested.package)
        for inner in registry.names(nested.package):
            spec = small(nested.package, inner)
            own = (
                {inner: {option: value for option, value in spec.items() if option != "name"}}
                if nested.many
                else spec
            )
            found[f" {key} {inner}"] = {"name": name, key: own}
    return found


def trainings() -> dict[str, tuple[Spec, Spec]]:
    """Name -> (model, objective) of everything that can be trained.

    Each objective with each model that it fits; what options name, with each model by the first of these objectives.
    """
    found = {}
    for name in registry.names("models"):
        model = small("models", name)
        made = registry.build("models", model, FACTS)
        done: set[str] = set()
        for objective in registry.names("objectives"):
            if fits(objective, made):
                for words, spec in objectives(objective, done).items():
                    loss = registry.build("objectives", spec, FACTS, made)
                    if has(made, loss.needs):
                        found[f"{name} {objective}{words}"] = model, spec
    return found


def first_of_each(names: Iterable[str]) -> list[str]:
    """The pairings in which a model, an objective or what an option names comes for the first time."""
    found = []
    seen: set[str] = set()
    for name in names:
        parts = name.split(" ", 2)
        if not seen.issuperset(parts):
            found.append(name)
        seen.update(parts)
    return found


AUGMENTATIONS = registry.names("training.augmentations")
TRAININGS = trainings()
FIRST = first_of_each(TRAININGS)  # the others are paired in `make torture`
