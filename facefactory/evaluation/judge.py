"""What the judge can be trusted with: counts of people, out-of-fold scores with intervals, and a refusal where it fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_auroc, multiclass_confusion_matrix

from facefactory.data.order import permute
from facefactory.metrics import intervals

Ids = npt.NDArray[np.int64]
LEAST_PEOPLE = 8  # on either side of a label, below which a score would be about those few


def people(table: pd.DataFrame, group: str | None) -> Ids:
    """A number per image that says whose it is; without a group, or where it is unknown, each image stands alone."""
    alone = -1 - np.arange(len(table))
    found = table[group].to_numpy() if group else alone
    return np.where(found < 0, alone, found)


def folds(groups: Ids, count: int) -> Ids:
    """Fold number of each image; a person lies in one fold."""
    names, inverse = np.unique(groups, return_inverse=True)
    return permute(np.arange(len(names)), len(names), 1)[inverse] % count


def countable(table: pd.DataFrame, schema: dict[str, Any], groups: Ids) -> dict[str, dict[str, Any]]:
    """Per label with classes (identities aside): images and people per class, and whether a score makes sense."""
    found = {}
    for name, entry in schema.items():
        if entry["kind"] in ("identity", "real"):
            continue
        values = table[name].to_numpy()
        classes = entry["classes"]
        images = [int((values == number).sum()) for number in range(len(classes))]
        heads = [len(np.unique(groups[values == number])) for number in range(len(classes))]
        few = [f"{n} people have {c}" for c, n in zip(classes, heads, strict=True) if n < LEAST_PEOPLE]
        fact = {"kind": entry["kind"], "classes": classes, "images": images, "people": heads, "scored": not few}
        found[name] = fact | ({"reason": f"{'; '.join(few)}; a score needs {LEAST_PEOPLE} on either side"} if few else {})
    return found


def scores(logits: dict[str, torch.Tensor], table: pd.DataFrame, schema: dict[str, Any], group: str | None) -> dict[str, Any]:
    """Balanced accuracy, AUROC (with 95 % intervals by person) and confusion matrix of every label with enough people.

    `logits` name -> [N, classes], in the order of the table.
    """
    groups = people(table, group)
    labels = countable(table, schema, groups)
    for name, fact in labels.items():
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
    return labels
