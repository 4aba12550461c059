"""A picture of several scores at once, as SVG: who is beaten by nobody in all of them, and by how much runs spread."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH = 420  # of a panel, pixels
HEIGHT = 320
LEFT = 60  # of its axes
RIGHT = 96  # for names of points at the right end
TOP = 24
BOTTOM = 48
INK = "#22303c"
LINE = "#dde3e8"
FRONT = "#2f5d8a"
BEHIND = "#b0b8c0"


@dataclass(frozen=True)
class Value:
    """Of some runs."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Axis:
    """A score: better ones lie to the right, or above."""

    title: str
    better: str  # higher or lower

    def gain(self, value: Value | None) -> float:
        """The more, the better; who has no value is behind all that have one."""
        if value is None:
            return -math.inf
        return value.mean if self.better == "higher" else -value.mean


Points = Mapping[str, Sequence[Value | None]]  # name -> a value an axis; None: it has none there


def front(points: Points, axes: Sequence[Axis]) -> set[str]:
    """Names of those that no other equals or beats on all axes while it beats them on one."""
    gains = {}
    for name, values in points.items():
        pairs = zip(axes, values, strict=True)
        gains[name] = [axis.gain(value) for axis, value in pairs]

    def beaten(name: str) -> bool:
        mine = gains[name]
        others = [gain for other, gain in gains.items() if other != name]
        return any(
            gain != mine and all(a >= b for a, b in zip(gain, mine, strict=True))
            for gain in others
        )

    return {name for name in points if not beaten(name)}


class Scale:
    """Values of an axis -> pixels from `start` (worst) to `end` (best)."""

    def __init__(self, axis: Axis, values: Sequence[Value], start: float, end: float) -> None:
        low = min(value.mean - value.deviation for value in values)
        high = max(value.mean + value.deviation for value in values)
        room = 0.06 * (high - low or 1.0)
        ends = (low - room, high + room)
        self.worst, self.best = ends if axis.better == "higher" else ends[::-1]
        self.start = start
        self.end = end

    def __call__(self, value: float) -> float:
        share = (value - self.worst) / (self.best - self.worst)
        return self.start + share * (self.end - self.start)

    def marks(self) -> list[float]:
        """Four values to write at the axis."""
        return [self.worst + (self.best - self.worst) * part / 3 for part in range(4)]


def panel(
    points: Points,
    axes: Sequence[Axis],
    x: int,
    y: int,
    whole: set[str],
) -> list[str]:
    """Elements of one pair of axes (their places in `axes`); `whole`: names that are drawn as the front."""
    pairs = {}
    for name, values in points.items():
        at_x = values[x]
        at_y = values[y]
        if at_x is not None and at_y is not None:
            pairs[name] = (at_x, at_y)
    across = Scale(axes[x], [pair[0] for pair in pairs.values()], LEFT, WIDTH - RIGHT)
    up = Scale(axes[y], [pair[1] for pair in pairs.values()], HEIGHT - BOTTOM, TOP)

    # a grid of values
    found = []
    for mark in across.marks():
        found.append(_line(across(mark), TOP, across(mark), HEIGHT - BOTTOM, LINE))
        found.append(_text(across(mark), HEIGHT - BOTTOM + 16, f"{mark:.3g}", "middle"))
    for mark in up.marks():
        found.append(_line(LEFT, up(mark), WIDTH - RIGHT, up(mark), LINE))
        found.append(_text(LEFT - 6, up(mark) + 4, f"{mark:.3g}", "end"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    found.append(_text(middle, HEIGHT - 10, f"{axes[x].title} →", "middle"))
    found.append(_text(LEFT, TOP - 8, f"↑ {axes[y].title}", "start"))

    # points with a standard deviation either way
    for name, (first, second) in pairs.items():
        color = FRONT if name in whole else BEHIND
        at = (across(first.mean), up(second.mean))
        for sign in (-1, 1):
            end = across(first.mean + sign * first.deviation)
            found.append(_line(*at, end, at[1], color))
            end = up(second.mean + sign * second.deviation)
            found.append(_line(*at, at[0], end, color))
        found.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="4" fill="{color}"/>')
        found.append(_text(at[0] + 7, at[1] - 5, name, "start"))
    return found


def picture(points: Points, axes: Sequence[Axis]) -> str:
    """An SVG: the first axis against each of the others, one panel each; dark are those on the front of all axes."""
    whole = front(points, axes)
    others = range(1, len(axes))
    size = f'viewBox="0 0 {WIDTH * len(others)} {HEIGHT}" width="{WIDTH * len(others)}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, other in enumerate(others):
        lines.append(f'<g transform="translate({number * WIDTH} 0)">')
        lines += [*panel(points, axes, 0, other, whole), "</g>"]
    return "\n".join([*lines, "</svg>", ""])


def _line(
    x: float,
    y: float,
    to_x: float,
    to_y: float,
    color: str,
) -> str:
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"'
    return f'<line {ends} stroke="{color}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}"'
    return f"<text {place}>{html.escape(words)}</text>"
