"""Labels as one vector, which conditional networks take: made here and nowhere else."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facefactory import UserError
from facefactory.data.sets.order import Ids, permute
from facefactory.facts import Label


def width(names: Sequence[str], labels: Mapping[str, Label]) -> int:
    """Columns of the vector for these labels.

    Raises:
        UserError: the set has no such label, or one without classes.
    """
    for name in names:
        if name not in labels:
            raise UserError(
                f"conditions: the set has no label {name!r}; it has {', '.join(labels) or 'none'}."
            )
        if not labels[name].classes:
            raise UserError(
                f"conditions: {name!r} has no classes; condition on labels that have some."
            )
    return sum(labels[name].columns for name in names)


def vector(
    values: Mapping[str, Tensor], names: Sequence[str], labels: Mapping[str, Label]
) -> Tensor:
    """Labels [b] int64 (-1 = missing) -> float32 [b, C].

    A binary label is one column of -1 and 1, others a column a class of 0 and 1; all are 0 where it is missing.
    """
    columns = []
    for name in names:
        codes = values[name].long()
        if labels[name].kind == "binary":
            columns.append((2 * codes - 1).masked_fill(codes < 0, 0)[:, None])
        else:
            # nothing is read back, as F.one_hot does on CPUs
            classes = torch.arange(len(labels[name].classes), device=codes.device)
            columns.append((codes[:, None] == classes).long())
    return torch.cat(columns, 1).float()


def of_images(model: Any, shards: Any, positions: Ids) -> Tensor:
    """The conditions of a set's own images at positions, [n, columns]; no columns for a model without conditions."""
    names: tuple[str, ...] = getattr(model, "conditions", ())
    if not names:
        return torch.empty(len(positions), 0)
    chosen = torch.from_numpy(positions)
    columns = {name: values[chosen] for name, values in shards.labels(names).items()}
    return vector(columns, names, shards.index.facts.labels)


def asked(model: Any, shards: Any, count: int) -> Tensor:
    """Conditions for images to be drawn, [count, columns]: those of the set's own at `positions`."""
    return of_images(model, shards, positions(shards, count))


def positions(shards: Any, count: int) -> Ids:
    """The images of a set whose labels are asked for, in a fixed shuffle, again and again."""
    return permute(np.arange(count) % len(shards), len(shards), 3)
