"""A picture of several scores at once, as SVG: who is beaten by nobody in all of them, and by how much runs spread."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

WIDTH = 4.4  # of a panel, inches
HEIGHT = 3.4
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


def panel(axes: Any, points: Mapping[str, tuple[Value, Value]], whole: set[str]) -> None:
    """Points of two scores with a standard deviation either way; `whole`: names that are drawn as the front."""
    for name, (x, y) in points.items():
        color = FRONT if name in whole else BEHIND
        axes.errorbar(
            x.mean,
            y.mean,
            y.deviation,
            x.deviation,
            fmt="o",
            color=color,
        )
        axes.annotate(
            name,
            (x.mean, y.mean),
            (5, 5),
            textcoords="offset points",
        )


def figure(points: Points, axes: Sequence[Axis]) -> Figure:
    """The first axis against each of the others, one panel each; dark are those on the front of all axes."""
    whole = front(points, axes)
    panels = len(axes) - 1
    made = Figure(figsize=(WIDTH * panels, HEIGHT), layout="constrained")
    for number, axis in enumerate(axes[1:], 1):
        pairs = {}
        for name, values in points.items():
            x = values[0]
            y = values[number]
            if x is not None and y is not None:
                pairs[name] = (x, y)
        own = made.add_subplot(1, panels, number)
        panel(own, pairs, whole)
        own.set(xlabel=f"{axes[0].title} →", ylabel=f"{axis.title} →")

        # better ones lie to the right, and above
        if axes[0].better == "lower":
            own.invert_xaxis()
        if axis.better == "lower":
            own.invert_yaxis()
    return made


def picture(points: Points, axes: Sequence[Axis]) -> str:
    """`figure` as an SVG whose words are words."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": ""}):
        figure(points, axes).savefig(
            target,
            format="svg",
            metadata={"Date": None},
        )
    return target.getvalue()
