"""Values that change with the clock: a number, or a mapping kimg -> value, linear between its points.

`shape: cosine` beside the points has it leave and reach each of them gently, by half a cosine. A schedule never depends on the budget, so that a longer training begins like a shorter one.
"""

import json
import math
from typing import Annotated, Any

from pydantic import BeforeValidator

SHAPES = ("linear", "cosine")
Points = dict[str, float | str]  # kimg -> value, and perhaps a shape


def checked(value: Any) -> float | Points:
    """A number, or the points of a schedule in the order of their kimg; as JSON keeps it.

    Raises:
        ValueError: neither of the two, a negative kimg, no points, no such shape, or a value that is not finite.
    """
    allowed = "give a number, or kimg: value pairs, e.g. {0: 1.0, 100: 0.1}"
    if not isinstance(value, dict):
        return _finite(value, allowed)
    pairs = dict(value)
    shape = pairs.pop("shape", SHAPES[0])
    if shape not in SHAPES:
        raise ValueError(f"shape {shape!r} between kimg; allowed are {', '.join(SHAPES)}")
    points = {_finite(kimg, allowed): _finite(number, allowed) for kimg, number in pairs.items()}
    if not points or min(points) < 0:
        raise ValueError(f"its kimg start at 0 or above; {allowed}")
    written: Points = {f"{kimg:.12g}": points[kimg] for kimg in sorted(points)}
    return written if shape == SHAPES[0] else {**written, "shape": shape}


def _finite(value: Any, allowed: str) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no number; {allowed}")
    return number


Scheduled = Annotated[float | Points, BeforeValidator(checked)]


def at(schedule: float | Points, kimg: float) -> float:
    """The value at a clock [thousands of images]; before the first point and after the last it stays as there."""
    if not isinstance(schedule, dict):
        return schedule
    points = _points(schedule)
    before = [point for point in points if point[0] <= kimg] or points[:1]
    after = [point for point in points if point[0] > kimg] or points[-1:]
    (start, first), (end, last) = before[-1], after[0]
    if start >= end or kimg <= start:
        return first
    share = (kimg - start) / (end - start)
    if schedule.get("shape") == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return first + (last - first) * share


def _points(schedule: Points) -> list[tuple[float, float]]:
    """Its kimg and values."""
    return [(float(kimg), float(value)) for kimg, value in schedule.items() if kimg != "shape"]


def least(schedule: float | Points) -> float:
    """The smallest value that a schedule ever has."""
    if not isinstance(schedule, dict):
        return schedule
    return min(value for _, value in _points(schedule))


def most(schedule: float | Points) -> float:
    """The greatest value that a schedule ever has."""
    if not isinstance(schedule, dict):
        return schedule
    return max(value for _, value in _points(schedule))


def word(schedule: float | Points) -> str:
    """A schedule as one word, by which files know it."""
    return json.dumps(schedule) if isinstance(schedule, dict) else f"{schedule:g}"
