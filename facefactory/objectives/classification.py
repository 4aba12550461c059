"""Cross-entropy over a label schema: one term a label, missing labels (-1) left out."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from facefactory import UserError
from facefactory.models import Classifier
from facefactory.objectives import Batch, Phase


class Component:
    """Weighted mean over labels of the cross-entropy summed over the images that have the label, per image of the batch.

    Args:
        schema: labels; those with classes are learned.
        identity_weight: weight of labels that name a person, beside 1 for the others.
    """

    phases = (Phase("classifier", "classifier"),)
    needs = ("logits",)
    uses_labels = True

    def __init__(self, schema: dict[str, Any], *, identity_weight: float = 1.0) -> None:
        kinds = {name: entry["kind"] for name, entry in schema.items() if "classes" in entry}
        if not kinds:
            raise UserError(
                "classification needs a label with classes; the set has none. Give pack.labels=TABLE.csv or sub-folders."
            )
        self.weights = {name: identity_weight if kind == "identity" else 1.0 for name, kind in kinds.items()}

    def loss(self, phase: str, model: Classifier, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted mean cross-entropy [nats]."""
        logits, total = model.logits(batch.augment(batch.images, "real")), batch.images.new_zeros(())
        shown = {}
        for name, weight in self.weights.items():
            target = batch.labels[name]
            # summed over the slice and divided by its size: ranks average to the same value wherever labels are missing
            value = F.cross_entropy(logits[name].to(batch.images), target, ignore_index=-1, reduction="sum") / len(target)
            shown[f"nats_{name}"] = value
            total = total + weight * value
        return total / sum(self.weights.values()), shown
