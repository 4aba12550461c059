"""Classifiers: the label scores of people the training never saw."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from facefactory import UserError
from facefactory.data.sets.loader import Shards
from facefactory.evaluation import Evaluation, features
from facefactory.evaluation import judge as judging
from facefactory.evaluation.subjects import Context
from facefactory.results import Goal, Protocol

TAKES = ("logits",)
GOAL = Goal("balanced_accuracy", "higher")


def needs(options: Evaluation) -> tuple[str, ...]:
    """Nothing: labels are known."""
    return ()


def goal(name: str | None, options: Evaluation) -> Goal:
    """The one goal that there is."""
    if name not in (None, GOAL.metric):
        raise UserError(f"sweep.goal={name}: classifiers are searched by {GOAL.metric}.")
    return GOAL


def admit(context: Context) -> None:
    """Nothing is to be feared: labels are known."""


def quick(model: Any, context: Context) -> dict[str, float]:
    """Balanced accuracy on held-out people: the mean over labels with images of two classes there.

    For a search alone: of labels with few people it is uncertain, and `full` gives it for none of those.
    """
    shards = Shards(context.index, context.options.held_out)
    found = []
    for name, logits in features.logits(model, shards).items():
        truth = shards.labels([name])[name].numpy()
        classes = np.unique(truth[truth >= 0])
        if context.index.content.labels[name].kind != "identity" and len(classes) > 1:
            chosen = logits.argmax(1).numpy()
            found.append(np.mean([np.mean(chosen[truth == one] == one) for one in classes]))
    if not found:
        raise UserError(
            f"no label has images of two classes in the split {context.options.held_out!r}: nothing to search by; "
            "give evaluation.held_out another split."
        )
    return {GOAL.metric: float(np.mean(found))}


def full(model: Any, context: Context, folder: Path) -> dict[str, Any]:
    """Per label balanced accuracy, AUROC and confusion on the held-out split; labels with too few people get counts."""
    index = context.index
    shards = Shards(index, context.options.held_out)
    labels = judging.scores(
        features.logits(model, shards),
        shards.table,
        index.content.labels,
        index.content.group,
    )

    # no images are compared: most of a protocol is empty
    protocol = Protocol(
        features="",
        weights="",
        resize="none",
        rounding="",
        dataset=index.images_digest[:12],
        split=context.options.held_out,
        crop=str(index.content.crop),
        reals=len(shards),
        fakes=0,
        seed=context.seed,
        average=context.average,
        truncation=1.0,
    )
    return {
        "labels": labels,
        "protocols": {protocol.id(): dataclasses.asdict(protocol)},
        "goal": dataclasses.asdict(GOAL),
    }
