"""Values that change with the clock: a number, or a mapping kimg -> value that is piecewise linear between its points.

A schedule never depends on the budget, so that a longer training begins like a shorter one.
"""

import math
from typing import Annotated, Any

from pydantic import BeforeValidator


def checked(value: Any) -> float | dict[str, float]:
    """A number, or the points of a schedule in the order of their kimg; as JSON keeps it.

    Raises:
        ValueError: neither of the two, a negative kimg, no points, or a value that is not finite.
    """
    allowed = "give a number, or kimg: value pairs, e.g. {0: 1.0, 100: 0.1}"
    if not isinstance(value, dict):
        return _finite(value, allowed)
    points = {_finite(kimg, allowed): _finite(number, allowed) for kimg, number in value.items()}
    if not points or min(points) < 0:
        raise ValueError(f"its kimg start at 0 or above; {allowed}")
    return {f"{kimg:.12g}": points[kimg] for kimg in sorted(points)}


def _finite(value: Any, allowed: str) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no number; {allowed}")
    return number


Scheduled = Annotated[float | dict[str, float], BeforeValidator(checked)]


def at(schedule: float | dict[str, float], kimg: float) -> float:
    """The value at a clock [thousands of images]; before the first point and after the last it stays as there."""
    if not isinstance(schedule, dict):
        return schedule
    points = [(float(place), value) for place, value in schedule.items()]
    before = [point for point in points if point[0] <= kimg] or points[:1]
    after = [point for point in points if point[0] > kimg] or points[-1:]
    (start, first), (end, last) = before[-1], after[0]
    if start >= end or kimg <= start:
        return first
    return first + (last - first) * (kimg - start) / (end - start)


def least(schedule: float | dict[str, float]) -> float:
    """The smallest value that a schedule ever has."""
    return min(schedule.values()) if isinstance(schedule, dict) else schedule
