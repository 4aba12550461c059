"""What the judge can be trusted with: counts of people, and out-of-fold scores with intervals."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from facefactory.data.sets import labels
from facefactory.data.sets.order import Ids, permute
from facefactory.metrics import Array, auroc, intervals


def folds(groups: Ids, count: int) -> Ids:
    """Fold number of each image; a person lies in one fold."""
    names, inverse = np.unique(groups, return_inverse=True)
    return permute(np.arange(len(names)), len(names), 1)[inverse] % count


def confusion(target: Ids, guessed: Ids, count: int) -> Ids:
    """How many images [classes, classes] of each class (row) are taken for each (column)."""
    return np.bincount(target * count + guessed, minlength=count**2).reshape(count, count)


def balanced_accuracy(chances: Array, target: Ids) -> float:
    """The mean over classes of the share of a class that is recognised; chances [N, classes]."""
    table = confusion(target, chances.argmax(1), chances.shape[1])
    return float((table.diagonal() / table.sum(1)).mean())


def mean_auroc(chances: Array, target: Ids) -> float:
    """The mean over classes of the AUROC of one class against all others; chances [N, classes]."""
    asked = np.eye(chances.shape[1])[target]
    return float(auroc.score(chances, asked).diagonal().mean())


STATISTICS = {"balanced_accuracy": balanced_accuracy, "auroc": mean_auroc}


def _measured(
    statistic: Callable[[Array, Ids], float], chances: Array, target: Ids, ids: Ids
) -> float:
    """NaN where a class is missing, as in some of the bootstrap's draws."""
    seen = target[ids]
    if len(np.unique(seen)) < chances.shape[1]:
        return float("nan")
    return statistic(chances[ids], seen)


def scores(
    logits: dict[str, Tensor], table: pd.DataFrame, schema: labels.Schema, group: str | None
) -> dict[str, Any]:
    """Balanced accuracy, AUROC (with 95 % intervals by person) and confusion matrix of every label with enough people.

    `logits` name -> [N, classes], in the order of the table.
    """
    groups = labels.people(table, group)
    found = labels.countable(table, schema, groups)
    for name in [name for name, fact in found.items() if fact["scored"]]:
        kept = np.flatnonzero(table[name] >= 0)
        classes = table[name].to_numpy(np.int64)[kept]
        chances = logits[name][kept].float().softmax(1).numpy()
        for label, statistic in STATISTICS.items():
            measure = functools.partial(_measured, statistic, chances, classes)
            value, reach, _ = intervals.student(measure, groups[kept], classes)
            found[name] |= {
                label: float(value),
                f"{label}_interval": np.clip([value - reach, value + reach], 0, 1).tolist(),
            }
        mistaken = confusion(classes, chances.argmax(1), chances.shape[1])
        found[name]["confusion"] = mistaken.tolist()
    return found
