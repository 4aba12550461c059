"""The language of search spaces: an entry a parameter, drawn from an Optuna trial, all or some of them under conditions.

`{choice: [a, b]}`, `{uniform: [low, high]}`, `{log_uniform: [low, high]}`, `{int: [low, high]}`; each with an optional
`when: {other.key: value or [values]}`, which holds for what was drawn above it.
"""

from typing import Any

from facefactory import UserError
from facefactory.trials import Params

Space = dict[str, dict[str, Any]]


def draw(trial: Any, name: str, entry: Any) -> Any:
    """A value for an entry of a space from an Optuna trial, whether its condition holds or not.

    ValueError, TypeError or AttributeError: nothing can be drawn from such an entry.
    """
    ((kind, values),) = (item for item in entry.items() if item[0] != "when")
    match kind, values:
        case "choice", [*_]:
            return trial.suggest_categorical(name, values)
        case "int", [int(low), int(high)]:
            return trial.suggest_int(name, low, high)
        case "uniform" | "log_uniform", [int() | float() as low, int() | float() as high] if (
            low <= high
        ):
            return trial.suggest_float(name, low, high, log=kind == "log_uniform")
    raise ValueError(kind)


def check_space(space: Space, name: str) -> None:
    """Raise UserError for an entry that cannot be drawn from, or a condition on something not drawn before it."""
    trial, seen = _random_study().ask(), set[str]()
    for param, entry in space.items():
        try:
            draw(trial, param, entry)
            conditions = entry.get("when", {}).keys()
        except (AttributeError, TypeError, ValueError):
            raise UserError(
                f"space {name}: {param} is {entry!r}; allowed are {{choice: [a, b, …]}}, {{uniform: [low, high]}}, "
                "{log_uniform: [low, high]}, {int: [low, high]}, {times: [0.5, 1, …]} of the run's own number, "
                "each with an optional when: {other.key: value}."
            ) from None
        for other in sorted(conditions - seen):
            raise UserError(
                f"space {name}: {param} depends on {other}, which is not drawn before it; put {other} above it."
            )
        seen.add(param)


def _applies(entry: dict[str, Any], drawn: Params) -> bool:
    wanted = entry.get("when", {}).items()
    return all(
        drawn.get(other) in (value if isinstance(value, list) else [value])
        for other, value in wanted
    )


def propose(trial: Any, space: Space) -> Params:
    """One point of a space, drawn from an Optuna trial: entries whose condition does not hold are left out."""
    drawn: Params = {}
    for name, entry in space.items():
        if _applies(entry, drawn):
            drawn[name] = draw(trial, name, entry)
    return drawn


def grid(space: Space) -> list[Params]:
    """All points of a space of choices, in order; UserError: the space has an entry that is no choice."""
    ranges = [name for name, entry in space.items() if "choice" not in entry]
    if ranges:
        raise UserError(
            f"sweep.sampler=grid needs choices only, but {', '.join(ranges)} has a range; use tpe or random."
        )
    points: list[Params] = [{}]
    for name, entry in space.items():
        more = [{name: value} for value in entry["choice"]]
        points = [
            {**point, **one}
            for point in points
            for one in (more if _applies(entry, point) else [{}])
        ]
    return [point for number, point in enumerate(points) if point not in points[:number]]


def _random_study() -> Any:
    """An Optuna study whose trials draw random points, always the same."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def examples(space: Space, count: int = 16) -> list[Params]:
    """Random points, for checking a space before anything starts."""
    study = _random_study()
    return [propose(study.ask(), space) for _ in range(count)]
