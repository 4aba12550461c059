"""What a training will take, estimated before it starts: one quantity a file. This file is torch-free.

QUICK                whether a login node may ask for it: no iteration is computed
estimate(planned)    -> float, in the unit that its name says; UserError: the training cannot be built

A search space may bound any of them: `constraints: {parameters: 5.0e+6}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

from facefactory import registry
from facefactory.data import Data
from facefactory.facts import Facts
from facefactory.training import Training

PACKAGE = "training.costs"


@dataclass(frozen=True)
class Planned:
    """A training that nobody has started."""

    model: dict[str, Any]  # name and options
    objective: dict[str, Any]
    options: Training
    data: Data
    facts: Facts


class Cost(Protocol):
    """See above."""

    QUICK: bool

    def estimate(self, planned: Planned) -> float: ...


def file(name: str) -> Cost:
    """The file behind a name; UserError: there is none."""
    return cast(Cost, registry.module(PACKAGE, name))


def estimates(planned: Planned, names: list[str]) -> dict[str, float]:
    """Cost by name; UserError: there is no such cost, or the training cannot be built."""
    return {name: file(name).estimate(planned) for name in names}
