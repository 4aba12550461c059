"""The protocol for classifiers: the label scores of people the training never saw."""

from pathlib import Path
from typing import Any

from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards
from facefactory.evaluation import Evaluation, features
from facefactory.evaluation import judge as judging


def evaluate(
    model: Any, judge: Any, digest: str, index: Index, options: Evaluation, seed: int, folder: Path
) -> dict[str, Any]:
    """Per label balanced accuracy, AUROC and confusion on the held-out split; labels with too few people get counts."""
    shards = Shards(index, options.held_out)
    labels = judging.scores(
        features.logits(model, shards),
        shards.table,
        index.content["labels"],
        index.content["group"],
    )
    return {
        "labels": labels,
        "protocol": {
            "split": options.held_out,
            "images": len(shards),
            "dataset": index.images_digest[:12],
        },
    }
