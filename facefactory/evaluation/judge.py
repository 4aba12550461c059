"""What the judge can be trusted with: counts of people, out-of-fold scores with intervals, and a refusal where it fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_auroc, multiclass_confusion_matrix

from facefactory.data import labels
from facefactory.data.order import permute
from facefactory.metrics import intervals

Ids = npt.NDArray[np.int64]


def folds(groups: Ids, count: int) -> Ids:
    """Fold number of each image; a person lies in one fold."""
    names, inverse = np.unique(groups, return_inverse=True)
    return permute(np.arange(len(names)), len(names), 1)[inverse] % count


def scores(logits: dict[str, torch.Tensor], table: pd.DataFrame, schema: dict[str, Any], group: str | None) -> dict[str, Any]:
    """Balanced accuracy, AUROC (with 95 % intervals by person) and confusion matrix of every label with enough people.

    `logits` name -> [N, classes], in the order of the table.
    """
    groups = labels.people(table, group)
    found = labels.countable(table, schema, groups)
    for name, fact in found.items():
        if not fact["scored"]:
            continue
        target = torch.from_numpy(table[name].to_numpy().astype(np.int64))
        kept = target >= 0
        target, chances, count = target[kept], logits[name][kept].float().softmax(1), len(fact["classes"])

        def balanced(ids: Ids, p: torch.Tensor = chances, t: torch.Tensor = target, n: int = count) -> float:
            return float(multiclass_accuracy(p[ids], t[ids], n, average="macro"))

        def auroc(ids: Ids, p: torch.Tensor = chances, t: torch.Tensor = target, n: int = count) -> float:
            return float(multiclass_auroc(p[ids], t[ids], n)) if len(t[ids].unique()) == n else float("nan")

        whole = np.arange(len(target))
        for label, statistic in (("balanced_accuracy", balanced), ("auroc", auroc)):
            fact[label] = statistic(whole)
            drawn = intervals.bootstrap(statistic, groups[kept.numpy()], 200)
            fact[f"{label}_interval"] = intervals.interval(drawn)
        fact["confusion"] = multiclass_confusion_matrix(chances, target, count).tolist()
    return found
