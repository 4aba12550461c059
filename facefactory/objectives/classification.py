"""Cross-entropy over the labels of a set: one term a label, missing labels (-1) left out."""

from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import UserError
from facefactory.facts import Facts
from facefactory.models import Classifier
from facefactory.objectives import Batch, Objective, Phase


class Component(nn.Module, Objective):
    """Weighted mean over labels of the cross-entropy summed over the images that have the label, per image of the batch.

    Args:
        facts: labels of the set; those with classes are learned.
        identity_weight: weight of labels that name a person, beside 1 for the others.
    """

    phases = (Phase("classifier", ("classifier",)),)
    needs = ("logits",)
    averaged = ("classifier",)
    uses_labels = True

    def __init__(self, facts: Facts, *, identity_weight: float = 1.0) -> None:
        super().__init__()
        learned = {name: label for name, label in facts.labels.items() if label.classes}
        if not learned:
            raise UserError(
                "classification needs a label with classes; the set has none. Give pack.labels=TABLE.csv or sub-folders."
            )
        self.weights = {
            name: identity_weight if label.kind == "identity" else 1.0
            for name, label in learned.items()
        }

    def loss(
        self, phase: str, model: Classifier, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted mean cross-entropy [nats]."""
        logits = model.logits(batch.augment(batch.images, "real"))
        total = batch.images.new_zeros(())
        shown = {}
        for name, weight in self.weights.items():
            target = batch.labels[name]
            scores = logits[name].to(batch.images)
            # summed over the slice and divided by its size: ranks average to the same value wherever labels are missing
            value = F.cross_entropy(scores, target, ignore_index=-1, reduction="sum") / len(target)
            shown[f"nats_{name}"] = value
            total = total + weight * value
        return total / sum(self.weights.values()), shown
