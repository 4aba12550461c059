"""What latent dimensions go with: effects on labels, with intervals and correction for testing.

This file is torch-free: it holds the section of the config tree, and the contract of latent spaces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from facefactory import UserError, registry
from facefactory.config import key
from facefactory.facts import Label
from facefactory.interpret.sharing import UNSHARED, Sharing

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from facefactory.data.sets.index import Index
    from facefactory.metrics import Array

MOST_CELLS = 200  # of a table of several labels


class Unsuited(UserError):
    """A model turns out not to have what a space is made of: refused if it was asked for, else told and left out."""


@dataclass(frozen=True)
class Interpret:
    """How latent dimensions are looked at."""

    spaces: list[str] = key(
        [], "latent spaces: files of interpret/spaces; [] = all that fit the model"
    )
    samples: int = key(2000, "generated faces judged, for models without an encoder", low=50)
    traversed: int = key(8, "dimensions shown as traversals", low=1)
    order: Literal["number", "kl"] = key(
        "number",
        "dimensions in reports: by number, or those with most KL first (where codes have one)",
    )
    inactive: bool = key(
        True,
        "report dimensions that carry nothing; false: their number is told, they are left out",
    )
    factors: list[str] = key(
        [], "labels that scores of whole codes (MIG, DCI, TAD) are about; [] = all but people"
    )
    joint: list[str] = key(
        [], "labels whose combinations are counted among drawn faces, e.g. [race,gender,age]"
    )
    min_effect: float = key(
        0.2,
        "size of 2 AUROC - 1, or of Spearman's correlation, beyond which an interval must lie for a name",
        low=0.0,
        high=1.0,
    )
    min_prevalence: float = key(
        0.01, "share of faces on the rarer side of a class below which it is left out", high=0.5
    )
    tasks: int = key(1, "Slurm jobs that share the faces and the walks", low=1, identity=False)
    runs: list[str] = key(
        [],
        "other runs, interpreted, whose dimensions are looked for: names below paths.runs, or folders",
    )


def factors_of(schema: Mapping[str, Label], options: Interpret) -> list[str]:
    """Labels that whole codes are held against; UserError: one that is asked for is none of the set's."""
    for name in options.factors:
        if name not in schema:
            raise registry.unknown(f"interpret.factors: no label {name!r}", name, schema)
    return options.factors or [name for name, label in schema.items() if label.kind != "identity"]


def combinations_of(schema: Mapping[str, Label], options: Interpret) -> list[tuple[str, ...]]:
    """Labels whose classes are counted among drawn faces: each alone, and the combination that is asked for.

    UserError: one that is asked for has no classes or names people, or there are too many combinations.
    """
    alone = [name for name, one in schema.items() if one.classes and one.kind != "identity"]
    for name in options.joint:
        if name not in alone:
            raise registry.unknown(f"interpret.joint: no label with classes {name!r}", name, alone)
    cells = math.prod(len(schema[name].classes) for name in options.joint)
    if cells > MOST_CELLS:
        raise UserError(
            f"interpret.joint={options.joint} has {cells} combinations of classes; at most {MOST_CELLS} are counted: "
            "give fewer labels."
        )
    together = [tuple(options.joint)] if len(options.joint) > 1 else []
    return [(name,) for name in alone] + together


@dataclass(frozen=True)
class Context:
    """What a space is looked at with."""

    index: Index
    judge: Any  # a classifier of the set's labels
    options: Interpret
    seed: int
    labels: list[str]  # those that enough people have
    factors: list[str]  # those that whole codes are held against
    witnesses: Any = None  # `witnesses.Witnesses`, who are asked for numbers; None: nobody
    made: dict[str, Space] = field(default_factory=dict)  # by name, so that none is made twice
    sharing: Sharing = UNSHARED


@dataclass(frozen=True)
class Space:
    """One latent space of a model, seen through N faces. A file of spaces/ has

    fits(model) -> bool           whether a model of this kind is looked at in it, unless told otherwise
    of(model, context) -> Space
    DIRECTIONS                    (may be left out) True: its columns are directions of another space, which comes first
    """

    codes: Array  # [N, D]
    labels: dict[str, Array]  # name -> [N] class numbers, or numbers as they are, NaN = missing
    groups: npt.NDArray[np.int64]  # [N] whose each row is: people, or the row itself
    scale: Array  # [D] one standard deviation: what a walk of ±3 means
    start: Tensor  # [D] where walks start from
    activity: list[float] | None  # KL of each dimension [nats]; None: nothing tells
    method: str  # in words, how labels and codes were found
    # rows -> the faces that they are the codes of, [n, H, W, C] uint8
    faces: Callable[[npt.NDArray[np.int64]], Tensor]
    decode: Callable[[Tensor], Tensor]  # codes [n, D] -> images [n, C, H, W] in -1…1
    judged: bool = False  # whether labels are answers, and no better than who gives them
