"""The language of search spaces (jobs/spaces/*.yaml): what is drawn, for which models, and what it may cost.

An entry is `key: {kind: values}`, with `when: {other.key: value or [values]}` where it is drawn only beside these values
of what stands above it. Kinds: `choice: [a, b]`, `uniform: [low, high]`, `log_uniform: [low, high]`, `int: [low, high]`,
`log_int: [low, high]`, `value: a` (drawn by nobody); `uniform` and `int` take a `step`.

`families: {gan/dcgan: {entries}, gan/r3: {entries}}` draws the model's name among these and gives each its own entries,
also of one key: what a sampler learns of one family's learning rate says nothing of another's.

`constraints: {parameters: 5.0e+6}` says what a trial may cost at most, by the files of training/costs.
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from facefactory import UserError
from facefactory.trials import Params

Entry = dict[str, Any]
Space = dict[
    str, Entry | list[Entry]
]  # a list holds alternatives: the first whose condition holds is drawn
FAMILIES = "families"
CONSTRAINTS = "constraints"
FAMILY = "model.name"  # what tells families apart
BESIDE = ("when", "step")  # the words of an entry that are no kind
ALLOWED = (
    "{choice: [a, b, …]}, {uniform: [low, high]}, {log_uniform: [low, high]}, {int: [low, high]}, {log_int: [low, high]}, "
    "{value: a}, {times: [0.5, 1, …]} of the run's own number, each with an optional when: {other.key: value}, uniform "
    "and int with an optional step"
)


def with_families(content: dict[str, Any], name: str) -> dict[str, Any]:
    """A space file's content with the entries of its families beside the others.

    UserError: the families are no mapping of names to entries, or the model's name is drawn elsewhere too.
    """
    families = content.get(FAMILIES)
    if families is None:
        return content
    if not isinstance(families, dict) or not all(
        isinstance(one, dict) for one in families.values()
    ):
        raise UserError(
            f"space {name}: families is {families!r}; give {{gan/dcgan: {{model.width: {{int: [8, 32]}}}}, …}}."
        )
    if FAMILY in content:
        raise UserError(f"space {name}: families draw {FAMILY} already; take its own entry away.")

    # each where it is first named, the families' own in the order of families
    entries: dict[str, Any] = {}
    for key, entry in content.items():
        if key != FAMILIES:
            entries[key] = entry
            continue
        entries[FAMILY] = {"choice": list(families)}
        for family, own in families.items():
            for param, given in own.items():
                alternative = _of_family(given, family)
                entries.setdefault(param, []).append(alternative)
    return entries


def _of_family(given: Any, family: str) -> Entry:
    """An entry that holds for one family alone; what is no mapping is a value."""
    entry = given if isinstance(given, dict) else {"value": given}
    return {**entry, "when": {FAMILY: family, **entry.get("when", {})}}


def alternatives(entry: Entry | list[Entry]) -> list[Entry]:
    """Of which one may be drawn."""
    several = isinstance(entry, list) and entry and all(isinstance(one, dict) for one in entry)
    return entry if several else [entry]  # type: ignore[return-value, list-item]


def label(name: str, entry: Entry, among: Entry | list[Entry]) -> str:
    """What a sampler knows a parameter by: its name, and of several alternatives its condition too."""
    if not isinstance(among, list):
        return name
    return f"{name} where {json.dumps(entry.get('when', {}), sort_keys=True)}"


def kind_of(entry: Entry) -> tuple[str, Any]:
    """The kind of an entry and its values; ValueError or AttributeError: it has none, or several."""
    ((kind, values),) = (item for item in entry.items() if item[0] not in BESIDE)
    return kind, values


def draw(trial: Any, name: str, entry: Entry) -> Any:
    """A value for an entry of a space from an Optuna trial, whether its condition holds or not.

    ValueError, TypeError or AttributeError: nothing can be drawn from such an entry.
    """
    kind, values = kind_of(entry)
    step = entry.get("step")
    if step is not None and kind not in ("int", "uniform"):
        raise ValueError(kind)
    match kind, values:
        case "value", value:
            return value
        case "choice", [*_]:
            return trial.suggest_categorical(name, values)
        case "int", [int(low), int(high)]:
            return trial.suggest_int(name, low, high, step=1 if step is None else step)
        case "log_int", [int(low), int(high)]:
            return trial.suggest_int(name, low, high, log=True)
        case "uniform" | "log_uniform", [int() | float() as low, int() | float() as high] if (
            low <= high
        ):
            return trial.suggest_float(name, low, high, step=step, log=kind == "log_uniform")
    raise ValueError(kind)


def at(share: float, entry: Entry) -> Any:
    """The value at a share in 0…1 of an entry's range, whether its condition holds or not."""
    kind, values = kind_of(entry)
    if kind == "value":
        return values
    if kind == "choice":
        return values[min(int(share * len(values)), len(values) - 1)]
    low, high = values
    if kind == "log_uniform":
        return low * (high / low) ** share
    if kind == "log_int":  # each number from half below it to half above it
        around = round((low - 0.5) * ((high + 0.5) / (low - 0.5)) ** share)
        return min(max(low, around), high)
    step = entry.get("step", 1 if kind == "int" else None)
    if step is None:
        return low + share * (high - low)
    steps = math.floor((high - low) / step + 1e-9)
    found = low + step * min(int(share * (steps + 1)), steps)
    return found


def check_space(space: Space, name: str) -> None:
    """Raise UserError for an entry that cannot be drawn from, or a condition on something not drawn before it."""
    trial = _random_study().ask()
    seen = set[str]()
    for param, given in space.items():
        for entry in alternatives(given):
            try:
                draw(trial, label(param, entry, given), entry)
                conditions = entry.get("when", {}).keys()
            except (AttributeError, TypeError, ValueError):
                raise UserError(
                    f"space {name}: {param} is {entry!r}; allowed are {ALLOWED}."
                ) from None
            for other in sorted(conditions - seen):
                raise UserError(
                    f"space {name}: {param} depends on {other}, which is not drawn before it; put {other} above it."
                )
        try:
            _hull(given)
        except TypeError as error:
            raise UserError(
                f"space {name}: {param} has {error}; give alternatives of one kind."
            ) from None
        seen.add(param)


def _applies(entry: Entry, drawn: Params) -> bool:
    wanted = entry.get("when", {}).items()
    return all(
        drawn.get(other) in (value if isinstance(value, list) else [value])
        for other, value in wanted
    )


def _walk(space: Space, value: Callable[[str, str, Entry], Any]) -> Params:
    """One point: the value that is given for the name, label and entry of each parameter whose condition holds."""
    drawn: Params = {}
    for name, given in space.items():
        for entry in alternatives(given):
            if _applies(entry, drawn):
                drawn[name] = value(name, label(name, entry, given), entry)
                break
    return drawn


def propose(trial: Any, space: Space) -> Params:
    """One point of a space, drawn from an Optuna trial: entries whose condition does not hold are left out."""
    return _walk(space, lambda name, asked, entry: draw(trial, asked, entry))


def placed(shares: list[float], space: Space) -> Params:
    """The point at these shares in 0…1 of the ranges, one for each alternative in the order of the space."""
    place = dict(zip(_labels(space), shares, strict=True))
    return _walk(space, lambda name, asked, entry: at(place[asked], entry))


def dimensions(space: Space) -> int:
    """Alternatives in all."""
    return len(list(_labels(space)))


def _labels(space: Space) -> Iterator[str]:
    for name, given in space.items():
        for entry in alternatives(given):
            yield label(name, entry, given)


def asked(params: Params, space: Space) -> Params:
    """A point as a sampler was asked for it: label -> value, without what is drawn by nobody.

    ValueError: it is no point of this space.
    """
    found: Params = {}

    def note(name: str, label: str, entry: Entry) -> Any:
        if name not in params:
            raise ValueError(f"{name} is not among the parameters")
        if "value" not in entry:
            found[label] = params[name]
        elif entry["value"] != params[name]:
            raise ValueError(f"{name} is {params[name]!r}, not {entry['value']!r}")
        return params[name]

    if _walk(space, note).keys() != params.keys():
        raise ValueError("there are parameters that the space does not have")
    return found


def distributions(params: Params, space: Space) -> dict[str, Any]:
    """Optuna's distribution of each parameter of a point that was drawn, over all alternatives where there are several.

    ValueError: it is no point of this space.
    """
    import optuna

    drawn = optuna.trial.FixedTrial(asked(params, space))
    propose(drawn, space)
    found = {}
    for name, given in space.items():
        labels = [label(name, entry, given) for entry in alternatives(given)]
        if drawn.distributions.keys() & set(labels):
            found[name] = _hull(given)
    return found


def _hull(given: Entry | list[Entry]) -> Any:
    """The least distribution that has the values of all alternatives; None: all are values.

    TypeError: they are choices and ranges.
    """
    import optuna

    kinds = list(map(_distribution, alternatives(given)))
    kinds = [kind for kind in kinds if kind is not None]
    if len(kinds) < 2:
        return kinds[0] if kinds else None
    if len({(type(kind), getattr(kind, "log", None)) for kind in kinds}) > 1:
        raise TypeError("choices and ranges, or ranges of several kinds")
    if hasattr(kinds[0], "choices"):
        choices = [value for kind in kinds for value in kind.choices]
        return optuna.distributions.CategoricalDistribution(list(dict.fromkeys(choices)))
    low = min(kind.low for kind in kinds)
    high = max(kind.high for kind in kinds)
    return type(kinds[0])(low, high, log=kinds[0].log)


def _distribution(entry: Entry) -> Any:
    """Optuna's; None: it is a value."""
    import optuna

    trial = optuna.trial.FixedTrial({"it": at(0.0, entry)})
    draw(trial, "it", entry)
    return trial.distributions.get("it")


def grid(space: Space) -> list[Params]:
    """All points of a space of choices, in order; UserError: the space has an entry that is no choice."""
    ranges = []
    for name, given in space.items():
        if not all(kind_of(entry)[0] in ("choice", "value") for entry in alternatives(given)):
            ranges.append(name)
    if ranges:
        raise UserError(
            f"sweep.sampler=grid needs choices only, but {', '.join(ranges)} has a range; use tpe or random."
        )
    points: list[Params] = [{}]
    for name, given in space.items():
        points = [wider for point in points for wider in _widened(point, name, given)]
    return [point for number, point in enumerate(points) if point not in points[:number]]


def _widened(point: Params, name: str, given: Entry | list[Entry]) -> list[Params]:
    """A point with each value of one more parameter, or as it is where no condition holds."""
    for entry in alternatives(given):
        if _applies(entry, point):
            kind, values = kind_of(entry)
            return [{**point, name: one} for one in (values if kind == "choice" else [values])]
    return [point]


def _random_study() -> Any:
    """An Optuna study whose trials draw random points, always the same."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def examples(space: Space, count: int = 16) -> list[Params]:
    """Random points, for checking a space before anything starts."""
    study = _random_study()
    return [propose(study.ask(), space) for _ in range(count)]
