"""What is scored, one kind of thing a file; a file is a `Scoring`. This file is torch-free.

A protocol (jobs/protocols/*.yaml) says by which of them, on which networks and images.


TAKES                what a model must have to be scored by it: ("sample",), say
needs(options)       -> what has to be made before: ("judge",) or ()
goal(name, options)  -> `Goal` of a score's name, or (None) the one that a search looks for unless it is told another
                     UserError: no such score, or one that must not rank; Missing: weights that it takes are not here
admit(context)          UserError: the goal does not see on this set what everybody sees
quick(model, context)   -> name -> value, at a rung of a trial: the goal among them
truncated(model, context, psis) -> `Truncations`; subjects that are drawn from z alone have it
full(model, context, folder) -> what results.json of the stage evaluate holds; pictures are written into the folder
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from facefactory import registry
from facefactory.evaluation import Evaluation
from facefactory.evaluation.extractors import Judge
from facefactory.results import Goal, Truncations

if TYPE_CHECKING:
    import torch

    from facefactory.data.sets.index import Index


@dataclass(frozen=True)
class Context:
    """What a model is scored on, and how."""

    index: Index
    options: Evaluation
    seed: int
    goal: Goal
    device: torch.device
    judge: Judge | None = None  # where the scoring needs one
    average: str = ""  # half-life of the weights that are scored, as the checkpoint names it
    likelihood: Any = None  # p(x|z) that a model with an encoder was trained with
    purpose: str = "evaluation"  # of the random numbers that images are drawn from


class Scoring(Protocol):
    """See above."""

    TAKES: tuple[str, ...]

    def needs(self, options: Evaluation) -> tuple[str, ...]: ...

    def goal(self, name: str | None, options: Evaluation) -> Goal: ...

    def admit(self, context: Context) -> None: ...

    def quick(self, model: Any, context: Context) -> dict[str, float]: ...

    def truncated(self, model: Any, context: Context, psis: Sequence[float]) -> Truncations: ...

    def full(self, model: Any, context: Context, folder: Path) -> dict[str, Any]: ...


def file(name: str) -> Scoring:
    """The file behind a name (`evaluation.scoring`); UserError: there is none."""
    return cast(Scoring, registry.module("evaluation.subjects", name))
