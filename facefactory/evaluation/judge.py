"""What the judge can be trusted with: counts of people, and out-of-fold scores with intervals."""

import functools
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_confusion_matrix,
)

from facefactory.data.sets import labels
from facefactory.data.sets.order import Ids, permute
from facefactory.metrics import intervals

STATISTICS = {
    "balanced_accuracy": functools.partial(multiclass_accuracy, average="macro"),
    "auroc": multiclass_auroc,
}


def folds(groups: Ids, count: int) -> Ids:
    """Fold number of each image; a person lies in one fold."""
    names, inverse = np.unique(groups, return_inverse=True)
    return permute(np.arange(len(names)), len(names), 1)[inverse] % count


def _measured(statistic: Any, chances: Tensor, target: Tensor, ids: Ids) -> float:
    """NaN where a class is missing, as in some of the bootstrap's draws."""
    count, seen = chances.shape[1], target[ids]
    return (
        float(statistic(chances[ids], seen, count))
        if len(seen.unique()) == count
        else float("nan")
    )


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
        target, chances = torch.from_numpy(classes), logits[name][kept].float().softmax(1)
        for label, statistic in STATISTICS.items():
            measure = functools.partial(_measured, statistic, chances, target)
            value, reach, _ = intervals.student(measure, groups[kept], classes)
            found[name] |= {
                label: float(value),
                f"{label}_interval": np.clip([value - reach, value + reach], 0, 1).tolist(),
            }
        found[name]["confusion"] = multiclass_confusion_matrix(
            chances, target, chances.shape[1]
        ).tolist()
    return found
